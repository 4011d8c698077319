// One row in the template, token by token. Typing never waits for it: one question is under way at a time, and what was
// typed meanwhile is asked next, so the last answer is the one that stands.
const MOST_VIRTUAL = 12, ENDS = 3;
let row = 0, count = 0, token = '', timer = null, caret = null;
let busy = false, again = false, tokenised = false, fetching = false;

// A line break inside a token would end the line
const shown = text => text.replace(/\n/g, '↵');

function virtual(names) {
  const pill = name => make('span', 'tp-virtual', name);
  if (names.length <= MOST_VIRTUAL) return names.map(pill);
  const middle = make('span', 'tp-more', '…');
  middle.title = `${names.length} virtual tokens`;
  return [...names.slice(0, ENDS).map(pill), middle, pill(names.at(-1))];
}

function drawPieces(pieces, reused) {
  const nodes = [];
  let run = [], kept = 0;
  for (const piece of [...pieces, null]) {
    if (piece && piece.kind === 'virtual') { run.push(piece.text); continue; }
    if (run.length) { nodes.push(...virtual(run)); run = []; }
    if (!piece) break;
    const isReused = piece.kind !== 'cut' && kept < reused;
    if (piece.kind !== 'cut') kept += 1;
    nodes.push(make('span', `tp-${piece.kind}${isReused ? ' tp-reused' : ''}`, shown(piece.text)));
  }
  q('.tp-pieces').replaceChildren(...nodes);
}

function line(d) {
  const text = d.length - d.num_virtual_tokens - d.num_answer;
  const answer = d.num_answer ? ` + ${d.num_answer} answer` : '';
  const parts = [`${text} tokens + ${d.num_virtual_tokens} virtual${answer} = ${d.length} of ${d.max_length}`];
  if (d.num_reused) parts.push(`reused text: ${d.num_reused} of ${d.length} tokens`);
  if (d.num_cut) parts.push(`${d.num_cut} cut`);
  return parts.join(' · ');
}

function drawPlain(pieces) {
  q('.tp-pieces').replaceChildren(...pieces.map(([text, kind]) => make('span', `tp-${kind}`, shown(text))));
  q('.tp-line').textContent = ''; q('.tp-legend').hidden = true;
}

function tellAnswers(answers) {
  window.ptuneAnswers = answers;
  window.dispatchEvent(new CustomEvent('ptune:answers'));
}

function show(d) {
  count = d.rows || count; row = d.row ?? row;
  q('.tp-row').textContent = count ? `row ${row + 1} of ${count}` : '';
  q('.tp-previous').disabled = row <= 0; q('.tp-next').disabled = row + 1 >= count;
  tokenised = Boolean(d.pieces);
  q('.tp-why').textContent = d.error || '';
  q('.tp-note').hidden = !d.error; q('.tp-fetch').hidden = !d.can_fetch;
  if (d.plain) drawPlain(d.plain);
  if (!d.pieces) { tellAnswers([]); return; }
  drawPieces(d.pieces, d.num_reused);
  q('.tp-line').textContent = line(d);
  q('.tp-legend').hidden = false;
  tellAnswers(d.answers);
}

async function ask() {
  if (busy) { again = true; return; }
  const asksToFetch = fetching;
  busy = true; again = false; element.dataset.state = 'working';
  if (!tokenised && !q('.tp-line').textContent) {
    q('.tp-line').textContent = fetching ? 'Fetching the tokenizer…' : 'Reading the tokenizer…';
  }
  let d;
  try { d = await server.look({...props.value.question, row, fetch: asksToFetch}); } catch (problem) { d = null; }
  d = d || {error: 'The preview is not to be had just now; it comes back by itself.'};     // the app is away
  busy = false;
  if (asksToFetch) fetching = false;                   // pressed meanwhile, it is asked next
  if (again) { ask(); return; }
  element.dataset.state = '';
  if (q('.tp-line').textContent.endsWith('…')) q('.tp-line').textContent = '';
  show(d);
}

function changed() {
  const value = props.value;
  q('.tp-box').hidden = !value || !value.question;
  drawChips(value ? value.chips : []);
  if (!value || !value.question) return;
  if (value.question.token !== token) { token = value.question.token; row = 0; tokenised = false; }
  if (!tokenised && row === 0) drawPlain(value.plain);
  clearTimeout(timer);
  timer = setTimeout(ask, 120);
}

function step(by) { row = Math.max(0, Math.min(count - 1, row + by)); ask(); }

const box = () => document.querySelector('#template textarea');

// At the caret; without one before the target. A target stands last and takes the place of another.
function insert(text) {
  const area = box(), old = area.value, target = old.match(/\s*\[(ANSWER|MASK|HEAD)[^\]]*\]\.?\s*$/);
  let at = caret === null || caret > old.length ? (target ? target.index : old.length) : caret, rest = old.slice(at);
  if (/^\[(ANSWER|MASK|HEAD)/.test(text)) { at = target ? target.index : old.length; rest = ''; }
  else if (at > 0 && !/\s$/.test(old.slice(0, at))) text = ' ' + text;
  const set = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value').set;
  set.call(area, old.slice(0, at) + text + rest);
  area.dispatchEvent(new Event('input', {bubbles: true}));
  area.focus();
  area.setSelectionRange(at + text.length, at + text.length);
  caret = at + text.length;
}

let chipsDrawn = '';
function drawChips(chips) {
  const text = JSON.stringify(chips);
  if (text === chipsDrawn) return;
  chipsDrawn = text;
  q('.tp-chips').replaceChildren(...chips.map(chip => {
    const button = make('button', 'tp-chip', chip);
    button.type = 'button'; button.setAttribute('aria-label', `Insert ${chip}`);
    button.addEventListener('click', () => insert(chip));
    return button;
  }));
}

listen(document, 'focusout', event => { if (event.target === box()) caret = event.target.selectionStart; });
q('.tp-previous').addEventListener('click', () => step(-1));
q('.tp-next').addEventListener('click', () => step(1));
q('.tp-fetch').addEventListener('click', () => { fetching = true; ask(); });
watch('value', changed);
changed();
