// What the page keeps in a browser is one person's: another one who logs in finds none of it.

const LAST = "pochade.visitor";
const form = document.querySelector("form");

form.addEventListener("submit", () => {
  const name = form.elements.name.value.trim().toLowerCase();
  try {
    if (localStorage.getItem(LAST) === name) return;
    localStorage.clear();
    indexedDB.deleteDatabase("pochade");
    localStorage.setItem(LAST, name);
  } catch {
    // A browser that keeps nothing has nothing to forget.
  }
});
