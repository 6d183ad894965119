// Puts a part on the page that was left for later.
() => ({ __type__: "update", visible: true })
