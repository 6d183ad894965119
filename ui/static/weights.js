// Changes the weight of words in a prompt: (word:1.1). The text is changed as a person would, so that undo works.

const STEP = 0.1;
const MIN = 0;
const MAX = 4;
const WORD = /[\p{L}\p{N}_'-]/u;

// Weighs what is selected in a text box, or the word under the caret.
export function weigh(box, direction) {
  const { text, start, end } = weighed(box.value, box.selectionStart, box.selectionEnd, direction);
  if (text === box.value) return;
  box.value = text;
  box.setSelectionRange(start, end);
  box.dispatchEvent(new Event("input", { bubbles: true }));
  box.setSelectionRange(start, end);
}

// Returns the new text and what is selected in it: the words without their brackets, so that one can go on.
export function weighed(text, start, end, direction) {
  if (start === end) [start, end] = wordAt(text, start);
  while (start < end && /\s/.test(text[start])) start++;
  while (end > start && /\s/.test(text[end - 1])) end--;
  const same = { text, start, end };
  if (start === end) return same;
  const held = brackets(text, start, end);
  const words = held ? text.slice(held.start, held.end) : text.slice(start, end);
  const before = text.slice(0, held ? held.open : start);
  const after = text.slice(held ? held.close : end);
  const weight = Math.round(((held?.weight ?? 1) + direction * STEP) * 100) / 100;
  if (weight < MIN || weight > MAX) return same;
  const plain = weight === 1;
  const middle = plain ? words : `(${words}:${weight})`;
  const from = before.length + (plain ? 0 : 1);
  return { text: before + middle + after, start: from, end: from + words.length };
}

// Finds "(words:1.2)" where just these words, or all of it, are selected.
function brackets(text, start, end) {
  const whole = /^\((.*):(\d*\.?\d+)\)$/s.exec(text.slice(start, end));
  if (whole && balanced(whole[1])) return { open: start, close: end, start: start + 1, end: start + 1 + whole[1].length, weight: Number(whole[2]) };
  const tail = /^:(\d*\.?\d+)\)/.exec(text.slice(end));
  if (text[start - 1] !== "(" || !tail) return null;
  return { open: start - 1, close: end + tail[0].length, start, end, weight: Number(tail[1]) };
}

function balanced(text) {
  let depth = 0;
  for (const letter of text) {
    depth += letter === "(" ? 1 : letter === ")" ? -1 : 0;
    if (depth < 0) return false;
  }
  return depth === 0;
}

function wordAt(text, place) {
  let start = place;
  let end = place;
  while (start > 0 && WORD.test(text[start - 1])) start--;
  while (end < text.length && WORD.test(text[end])) end++;
  return [start, end];
}
