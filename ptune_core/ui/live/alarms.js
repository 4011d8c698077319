// What is wrong with the run that is shown, and the buttons that would mend it. The value is the run's id; a button
// tells the page which fix it is (`fix`), and the page works out anew what that means.
const SLOWEST = 30000, list = element.querySelector('.al-list');
let run = null, drawn = '', timer = null, wait = 3 * props.period, generation = 0;

function button(fix) {
  const node = make('button', 'rs-button', fix.label); node.type = 'button';
  node.addEventListener('click', () => { node.disabled = true; trigger('fix', {run, key: fix.key}); });
  return node;
}

function item(alarm) {
  const box = make('div', alarm.error ? 'problem' : 'warning');
  box.setAttribute('role', alarm.error ? 'alert' : 'status');
  box.append(make('p', 'al-text', alarm.text));
  if (alarm.note) box.append(make('p', 'al-note', alarm.note));
  const fixes = make('div', 'al-fixes'); fixes.append(...alarm.fixes.map(button));
  if (alarm.fixes.length) box.append(fixes);
  return box;
}

function show(alarms) {
  const text = JSON.stringify(alarms);
  if (text === drawn) return;                            // the focus stays where it is
  drawn = text;
  list.replaceChildren(...alarms.map(item));
}

async function ask() {
  clearTimeout(timer);
  if (!run || isGone()) return;
  // Without an alarm it takes no room at all, so whether it can be seen is asked of what it stands in.
  if (document.hidden || !element.closest('#run-detail')?.offsetParent) { timer = setTimeout(ask, 500); return; }
  const mine = ++generation;
  let again = true;
  try {
    const d = await server.alarms({run, viewer: props.viewer});
    if (mine !== generation) return;
    if (d.error) wait = Math.min(SLOWEST, 2 * wait);         // what failed once need not fail twice
    else { show(d.alarms); again = Boolean(d.active); wait = 3 * props.period; }
  } catch (problem) { wait = Math.min(SLOWEST, 2 * wait); }
  if (mine === generation && again) timer = setTimeout(ask, wait);
}

// What a button began and nothing came of can be tried again.
listen(window, 'ptune:failed', () => { for (const node of list.querySelectorAll('button')) node.disabled = false; });

function start() { run = props.value || null; generation++; show([]); ask(); }

watch('value', () => { if ((props.value || null) !== run) start(); });
watch('state', ask);
start();
