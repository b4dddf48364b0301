"use strict";

// Send a file straight to the bucket, and return what the app says of it: name, size, media_type, url.
//
// `at` is <mount>/signed of the ASGI adapter. `onprogress({loaded, total})` is called as the bytes
// go. A part that fails is sent again, and after a reload of the page the same file goes on.
async function sendSigned(file, at, onprogress = () => {}) {
  const WORKERS = 3, TRIES = 8; // in a row, without any part that arrived
  const key = ["signed", at, file.name, file.size, file.lastModified].join(":");
  const pause = (tried) => new Promise((done) => setTimeout(done, Math.min(500 * 2 ** tried, 30000)));

  // Ask the app, and again while it or the network is down. A refusal is an error with its words.
  async function ask(path, method, body) {
    for (let tried = 0; ; tried += 1) {
      const answer = await fetch(at + path, { method, body }).catch(() => null);
      if (answer?.ok) return answer.json();
      if (answer && answer.status < 500) {
        const said = await answer.json().catch(() => ({}));
        throw Object.assign(new Error(said.error || `status ${answer.status}`), { status: answer.status });
      }
      if (tried >= TRIES) throw new Error("the connection was lost.");
      await pause(tried);
    }
  }

  function sendPart(url, blob, onsent) {
    return new Promise((done, failed) => {
      const request = new XMLHttpRequest();
      request.open("PUT", url);
      request.upload.onprogress = (event) => onsent(event.loaded);
      request.onload = () => (request.status === 200 ? done() : failed(new Error(`status ${request.status}`)));
      request.onerror = () => failed(new Error("the connection was lost."));
      request.send(blob);
    });
  }

  const begun = localStorage.getItem(key);
  let state = begun && await ask(`/${begun}`, "GET").catch(() => null);
  state = state || await ask("", "POST", JSON.stringify({ name: file.name, size: file.size }));
  localStorage.setItem(key, state.id);
  try {
    for (let tried = 0; state.missing > 0; state = await ask(`/${state.id}`, "GET")) {
      const sent = {}, waiting = Object.entries(state.urls), size = state.part_size;
      const before = (state.parts - state.missing) * size;
      let arrived = 0, problem = null;
      const work = async () => {
        for (let next = waiting.shift(); next; next = waiting.shift()) {
          const [number, url] = next;
          const show = (bytes) => {
            sent[number] = bytes;
            const loaded = Object.values(sent).reduce((sum, each) => sum + each, before);
            onprogress({ loaded: Math.min(loaded, file.size), total: file.size });
          };
          await sendPart(url, file.slice((number - 1) * size, number * size), show)
            .then(() => { arrived += 1; }, (error) => { show(0); problem = error; });
        }
      };
      await Promise.all(Array.from({ length: WORKERS }, work));
      tried = arrived ? 0 : tried + 1;
      if (tried > TRIES) throw problem;
      if (tried) await pause(tried);
    }
    onprogress({ loaded: file.size, total: file.size });
    return (await ask(`/${state.id}`, "POST"))[0];
  } catch (error) {
    if (error.status) localStorage.removeItem(key); // refused: the next try begins again
    throw error;
  } finally {
    if (state.missing === 0) localStorage.removeItem(key);
  }
}
