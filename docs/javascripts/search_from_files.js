/* Browsers start no worker from a file: there, the one of the search runs in a hidden frame. */
if (location.protocol === 'file:') {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      this.frame = document.createElement('iframe');
      this.frame.hidden = true;
      document.documentElement.append(this.frame);
      const inside = this.frame.contentWindow;
      const load = (source) => new Promise((done, failed) => {
        const script = inside.document.createElement('script');
        Object.assign(script, { src: new URL(source, document.baseURI).href, onload: done, onerror: failed });
        inside.document.documentElement.append(script);
      });
      inside.importScripts = (...sources) => sources.reduce(
        (before, source) => before.then(() => load(source)), Promise.resolve());
      inside.postMessage = (data) => {
        const event = new MessageEvent('message', { data });
        this.dispatchEvent(event);
        if (this.onmessage) this.onmessage(event);
      };
      this.ready = load(address);
    }
    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent('message', { data })));
    }
    terminate() { this.frame.remove(); }
  };
}
