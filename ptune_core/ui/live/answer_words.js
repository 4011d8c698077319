// Labels and their answer words; the preview tells what the base model's tokenizer makes of them.
let pairs = [], turn = 0, timer = null;

function send() { timer = null; props.value = {pairs, turn}; trigger('words'); }

function changed(i, words) {
  pairs = pairs.map(([label, old], at) => [label, at === i ? words : old]);
  turn += 1;
  clearTimeout(timer);
  timer = setTimeout(send, 200);
}

function row([label, words], i) {
  const line = make('div', 'aw-row'), input = make('input', 'aw-words');
  input.type = 'text'; input.value = words; input.maxLength = 1000; input.spellcheck = false;
  input.setAttribute('aria-label', `Answer words for ${label}`);
  input.addEventListener('input', () => changed(i, input.value));
  line.append(make('span', 'aw-label', label), input, make('span', 'aw-tokens'), make('span', 'aw-problem'));
  return line;
}

// The answer to a question from before words were typed: they stand, and the page has to hear of them once more.
function withTyped(given) {
  const typed = Object.fromEntries(pairs);
  return given.map(([label, words]) => [label, typed[label] ?? words]);
}

function take(value) {
  const given = Array.isArray(value) ? value : (value && value.pairs) || [];
  if (Array.isArray(value)) {                          // not an answer: what was asked for before it is of no account
    clearTimeout(timer); timer = null; turn += 1;
    props.value = {pairs: given, turn};
    return given;
  }
  if (!value || value.turn >= turn) return given;
  const mine = withTyped(given);
  if (!timer && JSON.stringify(mine) !== JSON.stringify(given)) setTimeout(() => { if (!timer) send(); }, 0);
  return mine;
}

function draw() {
  const given = take(props.value), text = JSON.stringify(given);
  q('.aw-box').hidden = !given.length;
  if (text === JSON.stringify(pairs)) return;
  pairs = given;
  q('.aw-rows').replaceChildren(...pairs.map(row));
  tell();
}

function tell() {
  const answers = Object.fromEntries((window.ptuneAnswers || []).map(answer => [answer.label, answer]));
  [...q('.aw-rows').children].forEach((line, i) => {
    const found = answers[pairs[i][0]];
    const tokens = line.querySelector('.aw-tokens'), problem = line.querySelector('.aw-problem');
    tokens.replaceChildren();
    (found ? found.ids : []).slice(0, 8).forEach((id, at) => {
      const token = make('span', 'aw-token', found.tokens[at]);
      token.append(make('small', 'aw-id', String(id)));
      token.title = `Token ${id}`;
      tokens.append(token);
    });
    problem.textContent = found ? found.problem : '';
    problem.hidden = !problem.textContent;
  });
}

watch('value', draw);
listen(window, 'ptune:answers', tell);
draw();
