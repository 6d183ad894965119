// Gives the values of a form their names, for the browser's store.
(names) => (...values) => Object.fromEntries(names.map((name, index) => [name, values[index]]))
