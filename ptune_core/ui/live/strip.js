// The strip above the tabs: what the machine does now, for every page. It is also the one who asks for the list of runs
// and hands it to the list (`ptune:runs`), so that a page asks once. All words come in `props.words`.
const SLOWEST = 12000,
  HIDDEN = 10000,
  NARROW = 600,
  NOTIFY = 'ptune-notify';
const words = props.words;
let shown = null,
  active = null,
  wait = props.period,
  timer = null,
  lines = [words.connecting],
  queue = '',
  told = null;

// The first of `lines` that fits: they say the same in less and less room.
function fit() {
  const text = q('.st-text'),
    more = words.waiting.replace('{}', JSON.parse(queue || '[]').length);
  q('.st-waiting').textContent = element.clientWidth < NARROW ? more.split(' ')[0] : more;
  q('.st-waiting').setAttribute('aria-label', more);
  for (const line of lines) {
    if (text.textContent !== line) text.textContent = line;
    if (text.scrollWidth <= text.clientWidth) break;
  }
}

// For screen readers: what began or ended, and not every step.
function announce(key, text) {
  if (told !== null && told !== key) q('.st-said').textContent = text;
  told = key;
}

function title(progress) {
  document.title = progress ? `${progress} · ${words.title}` : words.title;
}

function show(d) {
  const newest = d.newest,
    ended = !d.active && newest && newest.ended ? newest : null;
  const finished = active && !d.active;
  active = d.active;
  shown = active || ended;
  q('.st-line').dataset.state = active ? active.state : ended && ended.warning ? 'warning' : 'idle';
  lines = active ? active.lines : ended ? ended.lines : d.idle;
  q('.st-line').title = active || ended ? lines[0] : d.idle[0];
  announce(shown ? shown.id + q('.st-line').dataset.state : '', lines[0]);
  q('.st-open').hidden = !shown;
  q('.st-stop').hidden = !active || !active.can_stop;
  if (active) title(active.progress);
  else if (finished && document.hidden) title(words.done);
  else if (!document.hidden) title('');
  window.ptuneRuns = d.runs;
  window.ptuneNewest = newest;
  window.ptuneViewer = props.viewer;
  showQueue(d.waiting);
  notify(d);
  fit();
  window.dispatchEvent(new CustomEvent('ptune:runs'));
}

function lost() {
  q('.st-line').dataset.state = 'lost';
  lines = active ? words.lost : words.lost.slice(1);
  for (const name of ['.st-open', '.st-stop', '.st-notify', '.st-waiting', '.st-queue']) q(name).hidden = true;
  queue = '';
  q('.st-line').title = '';
  announce('lost', lines[0]);
  title('');
  fit();
}

function button(text, act) {
  const node = document.createElement('button');
  node.type = 'button';
  node.textContent = text;
  node.addEventListener('click', act);
  return node;
}

function showQueue(waiting) {
  const open = q('.st-waiting'),
    list = q('.st-queue'),
    now = JSON.stringify(waiting);
  open.hidden = !waiting.length;
  if (!waiting.length) open.setAttribute('aria-expanded', 'false');
  list.hidden = open.getAttribute('aria-expanded') !== 'true';
  if (now === queue) return; // a button in it may have the focus
  queue = now;
  list.replaceChildren(
    ...waiting.map((run, i) => {
      const item = document.createElement('li'),
        name = document.createElement('span');
      name.textContent = run.line;
      name.className = 'st-name';
      const earlier = button(words.earlier, () => trigger('earlier', {run: run.id}));
      earlier.hidden = i === 0; // nothing of this viewer's waits before it
      item.append(
        name,
        earlier,
        button(words.remove, () => trigger('halt', {run: run.id})),
      );
      return item;
    }),
  );
}

const canNotify = () => window.isSecureContext && 'Notification' in window && Notification.permission !== 'denied';

function notify(d) {
  const id = sessionStorage.getItem(NOTIFY),
    run = id && d.runs.find(each => each.id === id);
  if (run && !['queued', 'running'].includes(run.state)) {
    sessionStorage.removeItem(NOTIFY);
    const line = d.newest && d.newest.id === id ? d.newest.line : run.state;
    try {
      const note = new Notification(run.name, {body: line, tag: id});
      note.onclick = () => {
        window.focus();
        trigger('open', {run: id});
      };
    } catch (problem) {
      /* browsers of phones have no notifications of pages */
    }
  }
  const asked = Boolean(active) && id === active.id;
  q('.st-notify').hidden = !active || !canNotify();
  q('.st-notify').textContent = asked ? words.notifying : words.notify;
  q('.st-notify').setAttribute('aria-pressed', asked);
}

async function askToNotify() {
  const id = active && active.id;
  if (!id) return;
  if (sessionStorage.getItem(NOTIFY) === id) sessionStorage.removeItem(NOTIFY);
  else if ((await Notification.requestPermission()) === 'granted') sessionStorage.setItem(NOTIFY, id);
  tick();
}

async function tick() {
  clearTimeout(timer);
  if (document.hidden && !active) return; // `visibilitychange` wakes it up again
  try {
    const d = await server.overview({viewer: props.viewer});
    if (d.error) {
      q('.st-line').dataset.state = 'warning';
      lines = [d.error];
      fit();
      wait = Math.min(SLOWEST, 2 * wait);
    } else {
      wait = props.period;
      show(d);
    }
  } catch (problem) {
    wait = Math.min(SLOWEST, 2 * wait);
    lost();
  }
  clearTimeout(timer);
  timer = setTimeout(tick, document.hidden ? Math.max(HIDDEN, wait) : wait);
}

for (const name of ['open', 'stop']) q(`.st-${name}`).textContent = words[name];
q('.st-queue').setAttribute('aria-label', words.queue);
q('.st-open').addEventListener('click', () => shown && trigger('open', {run: shown.id}));
q('.st-stop').addEventListener('click', () => shown && trigger('halt', {run: shown.id}));
q('.st-notify').addEventListener('click', askToNotify);
q('.st-waiting').addEventListener('click', event => {
  const open = event.currentTarget.getAttribute('aria-expanded') !== 'true';
  event.currentTarget.setAttribute('aria-expanded', open);
  q('.st-queue').hidden = !open;
});
watch('viewer', tick);
listen(document, 'visibilitychange', () => {
  if (!document.hidden) title(active ? active.progress : '');
  tick();
});
listen(window, 'ptune:refresh', tick);
listen(window, 'resize', fit);
fit();
tick();
