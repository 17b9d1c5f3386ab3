// A browser's side of greentask's gateway, for a page that the gateway serves.
//
//   const tasks = new Greentask();
//   const { result, message } = await tasks.call("send_mail", { to: [...] }, progress => ...);
"use strict";

class GreentaskError extends Error {
  constructor({ type, message }) {
    super(message || type);
    this.name = type;
  }
}

class Greentask {
  constructor(url = `${location.protocol.replace("http", "ws")}//${location.host}/`) {
    this.url = url;
    this.calls = new Map();
    this.lastId = 0;
    this.socket = null; // a promise of the open socket
  }

  // Start a task. Resolves to {result, message}; rejects with a GreentaskError whose name is the error's type.
  async call(name, args = {}, onprogress = () => {}) {
    const socket = await this.connect();
    const id = ++this.lastId;
    return new Promise((resolve, reject) => {
      this.calls.set(id, { resolve, reject, onprogress });
      socket.send(JSON.stringify({ id, function: name, args }));
    });
  }

  connect() {
    this.socket ??= new Promise((resolve, reject) => {
      const socket = new WebSocket(this.url);
      socket.onopen = () => resolve(socket);
      socket.onmessage = event => this.hear(JSON.parse(event.data));
      socket.onclose = event => {
        this.socket = null;
        const error = new GreentaskError({
          type: "ConnectionLost",
          message: event.reason || `the connection was lost (${event.code})`,
        });
        reject(error);
        for (const call of this.calls.values()) call.reject(error);
        this.calls.clear();
      };
    });
    return this.socket;
  }

  hear({ id, progress, error, result, message }) {
    const call = this.calls.get(id);
    if (!call) return;
    if (progress) {
      call.onprogress(progress);
      return;
    }
    this.calls.delete(id);
    if (error) call.reject(new GreentaskError(error));
    else call.resolve({ result, message });
  }
}
