// Labels and their answer words; the preview tells what the base model's tokenizer makes of them.
const q = selector => element.querySelector(selector);
const make = (tag, name, text = '') => { const node = document.createElement(tag); node.className = name; node.textContent = text; return node; };
let pairs = [], timer = null;

function changed(i, words) {
  pairs = pairs.map(([label, old], at) => [label, at === i ? words : old]);
  clearTimeout(timer);
  timer = setTimeout(() => { timer = null; props.value = pairs; trigger('words'); }, 200);
}

function row([label, words], i) {
  const line = make('div', 'aw-row'), input = make('input', 'aw-words');
  input.type = 'text'; input.value = words; input.maxLength = 1000; input.spellcheck = false;
  input.setAttribute('aria-label', `Answer words for ${label}`);
  input.addEventListener('input', () => changed(i, input.value));
  line.append(make('span', 'aw-label', label), input, make('span', 'aw-tokens'), make('span', 'aw-problem'));
  return line;
}

function draw() {
  const given = Array.isArray(props.value) ? props.value : [];
  q('.aw-box').hidden = !given.length;
  const text = JSON.stringify(given);
  if (text === JSON.stringify(pairs) || (timer && q('.aw-rows').contains(document.activeElement))) return;   // being typed
  pairs = given;
  q('.aw-rows').replaceChildren(...pairs.map(row));
  tell();
}

function tell() {
  const answers = Object.fromEntries((window.ptuneAnswers || []).map(answer => [answer.label, answer]));
  [...q('.aw-rows').children].forEach((line, i) => {
    const found = answers[pairs[i][0]], tokens = line.querySelector('.aw-tokens'), problem = line.querySelector('.aw-problem');
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
window.addEventListener('ptune:answers', tell);
draw();
