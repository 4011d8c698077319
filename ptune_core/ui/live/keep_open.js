// What a person unfolded stays so when the text is written anew.
const open = new Set();
element.addEventListener('toggle', event => {
  const key = event.target.dataset.key;
  if (!key || !event.target.isConnected) return;
  if (event.target.open) open.add(key); else open.delete(key);
}, true);
watch('value', () => element.querySelectorAll('details').forEach(fold => { fold.open = open.has(fold.dataset.key); }));
