// Two-way streams (docs/api.md): binary messages are bytes, text messages are JSON about them.
import { Failure, type Problem } from '../api/client';

export interface Said {
  problem?: Problem;
  exit_code?: number;
}

interface Listener {
  bytes: (bytes: Uint8Array) => void;
  said: (said: Said) => void;
  /** `failure` where it was not the end that was meant. */
  closed: (failure: Failure | null) => void;
}

export function open(path: string, listener: Listener): WebSocket {
  const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
  const socket = new WebSocket(`${scheme}://${location.host}${path}`, ['cse.v1']);
  socket.binaryType = 'arraybuffer';
  let failure: Failure | null = null;
  socket.onmessage = (message) => {
    if (message.data instanceof ArrayBuffer) {
      listener.bytes(new Uint8Array(message.data));
      return;
    }
    const said = JSON.parse(message.data as string) as Said;
    if (said.problem) failure = new Failure(said.problem);
    else listener.said(said);
  };
  socket.onclose = (event) => {
    if (!failure && event.code !== 1000 && event.code !== 1005)
      failure = new Failure({
        type: 'urn:cse:problem:unreachable',
        title: 'The connection broke off.',
        status: 0,
        detail: 'The connection broke off.',
        remedy: 'The server may be restarting, or this token may not do it; try again.',
        errors: [],
      });
    listener.closed(failure);
  };
  return socket;
}

export const tell = (socket: WebSocket | undefined, message: object) => {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
};
