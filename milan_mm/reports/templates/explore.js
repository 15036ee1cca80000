// SPDX-License-Identifier: Apache-2.0
// Asks the server that gave out the page, and shows what it answers.
'use strict';

const part = (id) => document.getElementById(id);
const seen = part('seen');
const rows = Number(seen.dataset.rows), columns = Number(seen.dataset.columns);
const state = { image: null, row: rows >> 1, column: columns >> 1, draw: 0 };
const busy = {}, waiting = {};

function make(tag, values, ...children) {
  const element = Object.assign(document.createElement(tag), values);
  element.append(...children);
  return element;
}

function say(text, wrong = false) {
  part('status').textContent = text;
  part('status').classList.toggle('wrong', wrong);
}

async function fetched(address, options) {
  const answer = await fetch(address, options);
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

function fill(id, answer) {
  const place = part(id);
  const parts = answer.rows.flatMap((row) => [
    make('h3', { textContent: row.title }),
    make('ul', { className: 'tiles' }, ...row.tiles.map((tile) => make('li', {}, make('img', {
      src: tile.src, alt: tile.alt, className: tile.map ? 'map' : '' }), tile.caption)))]);
  if (answer.facts.length) {
    parts.push(make('ul', { className: 'numbers' }, ...answer.facts.map(
      ([name, value]) => make('li', {}, `${name} `, make('b', { textContent: value })))));
  }
  place.replaceChildren(...parts);
}

// One question of a kind at a time; while it is answered, the last one asked waits.
async function ask(id, values = {}) {
  if (!part(id) || !state.image) return;
  if (busy[id]) { waiting[id] = values; return; }
  busy[id] = true;
  try {
    fill(id, await fetched(`${id}?${new URLSearchParams({ image: state.image, ...values })}`));
  } catch (error) {
    say(error.message, true);
  }
  busy[id] = false;
  if (waiting[id]) {
    const next = waiting[id];
    delete waiting[id];
    await ask(id, next);
  }
}

async function show(address, options, name) {
  say(`Looking at ${name} …`);
  try {
    const answer = await fetched(address, options);
    state.image = answer.image;
    part('image').src = answer.rows[0].tiles[0].src;
    part('image').alt = answer.rows[0].tiles[0].alt;
    fill('whole', answer);
    seen.hidden = false;
    if (part('words')) part('words').replaceChildren();
    await Promise.all([choose(), draw(), ask('near')]);
    say(`Shown: ${name}`);
  } catch (error) {
    say(error.message, true);
  }
}

function upload(file) {
  show(`image?${new URLSearchParams({ name: file.name })}`, { method: 'POST', body: file }, file.name);
}

function choose() {
  const percent = (value) => `${100 * value}%`;
  Object.assign(part('mark').style, {
    left: percent(state.column / columns), width: percent(1 / columns),
    top: percent(state.row / rows), height: percent(1 / rows) });
  part('chosen').textContent = `Chosen: row ${state.row + 1} of ${rows}, column ${state.column + 1} of ${columns}`;
  return ask('patch', { row: (state.row + 0.5) / rows, column: (state.column + 0.5) / columns });
}

function draw() {
  if (!part('ratio')) return null;
  const temperature = part('temperature');
  part('ratio-is').textContent = `${Math.round(100 * part('ratio').value)} %`;
  if (temperature) part('temperature-is').textContent = temperature.value;
  return ask('masks', { ratio: part('ratio').value, temperature: temperature ? temperature.value : 1, draw: state.draw });
}

function move(down, right) {
  state.row = Math.min(Math.max(state.row + down, 0), rows - 1);
  state.column = Math.min(Math.max(state.column + right, 0), columns - 1);
  choose();
}

part('file').addEventListener('change', (event) => event.target.files[0] && upload(event.target.files[0]));
document.addEventListener('dragover', (event) => { event.preventDefault(); document.body.classList.add('dragging'); });
document.addEventListener('dragleave', (event) => event.relatedTarget || document.body.classList.remove('dragging'));
document.addEventListener('drop', (event) => {
  event.preventDefault();
  document.body.classList.remove('dragging');
  if (event.dataTransfer.files[0]) upload(event.dataTransfer.files[0]);
});
part('gallery')?.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (button) show(`gallery/${button.dataset.number}`, {}, button.firstChild.alt);
});
part('pick').addEventListener('click', (event) => {
  if (event.detail === 0) return; // by the keyboard: the patch is chosen already
  const box = part('image').getBoundingClientRect();
  state.row = Math.min(Math.max(Math.floor(rows * (event.clientY - box.top) / box.height), 0), rows - 1);
  state.column = Math.min(Math.max(Math.floor(columns * (event.clientX - box.left) / box.width), 0), columns - 1);
  choose();
});
part('pick').addEventListener('keydown', (event) => {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (step) { event.preventDefault(); move(...step); }
});
for (const id of ['ratio', 'temperature']) part(id)?.addEventListener('input', draw);
part('again')?.addEventListener('click', () => { state.draw += 1; draw(); });
part('ask')?.addEventListener('submit', (event) => {
  event.preventDefault();
  ask('words', { text: part('text').value });
});
