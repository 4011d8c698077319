// The first rows, and over each column who reads it: nobody, a place of the template, or the target.
let drawn = '', turn = 0, mine = null;

function roleOf(value, column) {
  const found = Object.entries(value.roles).find(([, name]) => name === column);
  return found ? found[0] : '';
}

function send(value, roles, now) {
  turn = now; mine = {token: value.token, roles};
  props.value = {...value, roles, turn};
  trigger('roles');
}

function choose(column, role) {
  const roles = {...props.value.roles};
  for (const [name, other] of Object.entries(roles)) if (other === column) roles[name] = '';
  if (role) roles[role] = column;
  send(props.value, roles, turn + 1);
}

function select(value, column) {
  const list = document.createElement('select');
  list.setAttribute('aria-label', `Column ${column} is`);
  for (const [name, text] of [['', 'not used'], ...value.choices]) {
    const option = make('option', '', text);
    option.value = name;
    list.append(option);
  }
  list.value = roleOf(value, column);
  list.addEventListener('change', () => choose(column, list.value));
  return list;
}

function draw() {
  const value = props.value, text = JSON.stringify(value || null);
  if (text === drawn) return;
  // The answer to an earlier choice must not undo a later one.
  if (value && mine && value.token === mine.token && value.turn < turn) { send(value, mine.roles, turn); return; }
  drawn = text;
  element.hidden = !value || !value.columns.length;
  q('.cr-names').replaceChildren(); q('.cr-roles').replaceChildren(); q('tbody').replaceChildren();
  if (element.hidden) return;
  const used = value.columns.map(column => roleOf(value, column) ? 'cr-used' : 'cr-unused');
  const cell = (tag, i, content) => { return make(tag, used[i], content); };
  value.columns.forEach((column, i) => {
    q('.cr-names').append(cell('th', i, column));
    q('.cr-roles').append(cell('td', i, select(value, column)));
  });
  for (const row of value.rows) {
    const line = document.createElement('tr');
    row.forEach((text, i) => line.append(cell('td', i, text)));
    q('tbody').append(line);
  }
}

watch('value', draw);
draw();
