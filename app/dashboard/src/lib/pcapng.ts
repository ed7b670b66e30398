// Reads the blocks of a capture as they come, and says of each packet what a person wants to know.
// pcapng (draft-ietf-opsawg-pcapng), little-endian as the server writes it; "cooked" headers.

export interface Packet {
  n: number;
  /** Seconds since 1970. */
  time: number;
  link: string;
  out: boolean;
  length: number;
  source: string;
  target: string;
  protocol: string;
  info: string;
  data: Uint8Array;
}

const SECTION = 0x0a0d0d0a;
const INTERFACE = 1;
const PACKET = 6;
const IF_NAME = 2;
const COOKED = 16;

export class Reader {
  #rest = new Uint8Array(0);
  #links: string[] = [];
  #n = 0;

  /** The packets that these bytes complete. */
  take(bytes: Uint8Array): Packet[] {
    const all = new Uint8Array(this.#rest.length + bytes.length);
    all.set(this.#rest);
    all.set(bytes, this.#rest.length);
    const view = new DataView(all.buffer);
    const found: Packet[] = [];
    let at = 0;
    while (all.length - at >= 12) {
      const kind = view.getUint32(at, true);
      const size = view.getUint32(at + 4, true);
      if (size < 12 || all.length - at < size) break;
      const body = all.subarray(at + 8, at + size - 4);
      if (kind === SECTION) this.#links = [];
      else if (kind === INTERFACE) this.#links.push(nameOf(body));
      else if (kind === PACKET) found.push(this.#packet(body));
      at += size;
    }
    this.#rest = all.slice(at);
    return found;
  }

  #packet(body: Uint8Array): Packet {
    const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
    const nanoseconds = view.getUint32(4, true) * 2 ** 32 + view.getUint32(8, true);
    const captured = view.getUint32(12, true);
    const data = body.slice(20, 20 + captured);
    const out = data.length >= 2 && data[1] === 4;
    const ip = data.subarray(COOKED);
    return {
      n: ++this.#n,
      time: nanoseconds / 1e9,
      link: this.#links[view.getUint32(0, true)] ?? '',
      out,
      length: Math.max(0, view.getUint32(16, true) - COOKED),
      ...dissect(ip),
      data: ip,
    };
  }
}

function nameOf(body: Uint8Array): string {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  for (let at = 8; at + 4 <= body.length;) {
    const [code, size] = [view.getUint16(at, true), view.getUint16(at + 2, true)];
    if (code === 0) break;
    if (code === IF_NAME) return new TextDecoder().decode(body.subarray(at + 4, at + 4 + size));
    at += 4 + Math.ceil(size / 4) * 4;
  }
  return '';
}

type Dissected = Pick<Packet, 'source' | 'target' | 'protocol' | 'info'>;

export function dissect(ip: Uint8Array): Dissected {
  const version = (ip[0] ?? 0) >> 4;
  if (version === 4 && ip.length >= 20) {
    const header = (ip[0]! & 15) * 4;
    const fragment = ((ip[6]! & 31) << 8) | ip[7]!;
    const [from, to] = [ipv4(ip, 12), ipv4(ip, 16)];
    if (fragment)
      return { source: from, target: to, protocol: 'IPv4', info: `fragment at ${fragment * 8}` };
    return transport(ip[9]!, ip.subarray(header), from, to, ((ip[2]! << 8) | ip[3]!) - header);
  }
  if (version === 6 && ip.length >= 40)
    return transport(ip[6]!, ip.subarray(40), ipv6(ip, 8), ipv6(ip, 24), (ip[4]! << 8) | ip[5]!);
  return { source: '', target: '', protocol: '?', info: '' };
}

const FLAGS = ['FIN', 'SYN', 'RST', 'PSH', 'ACK', 'URG'];

function transport(
  kind: number,
  data: Uint8Array,
  from: string,
  to: string,
  length: number,
): Dissected {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const v6 = from.includes(':');
  const ported = (address: string, port: number) =>
    v6 ? `[${address}]:${port}` : `${address}:${port}`;
  if (kind === 6 && data.length >= 20) {
    const flags = FLAGS.filter((_, bit) => data[13]! & (1 << bit)).join(' ');
    const payload = Math.max(0, length - (data[12]! >> 4) * 4);
    const said = payload ? `, ${payload} B ${firstLine(data.subarray((data[12]! >> 4) * 4))}` : '';
    return {
      source: ported(from, view.getUint16(0)),
      target: ported(to, view.getUint16(2)),
      protocol: 'TCP',
      info: `${flags} win ${view.getUint16(14)}${said}`,
    };
  }
  if (kind === 17 && data.length >= 8) {
    const [source, target] = [view.getUint16(0), view.getUint16(2)];
    return {
      source: ported(from, source),
      target: ported(to, target),
      protocol: source === 53 || target === 53 ? 'DNS' : 'UDP',
      info: `${view.getUint16(4) - 8} B`,
    };
  }
  if (kind === 1 || kind === 58) {
    const ECHO: Record<number, string> = {
      8: 'echo request',
      0: 'echo reply',
      128: 'echo request',
      129: 'echo reply',
      135: 'neighbour solicitation',
      136: 'neighbour advertisement',
      3: 'unreachable',
      11: 'time exceeded',
    };
    return {
      source: from,
      target: to,
      protocol: kind === 1 ? 'ICMP' : 'ICMPv6',
      info: ECHO[data[0]!] ?? `type ${data[0]}`,
    };
  }
  return { source: from, target: to, protocol: `IP ${kind}`, info: '' };
}

/** The beginning of a text; nothing for binary data. */
function firstLine(data: Uint8Array): string {
  const head = data.subarray(0, 80);
  const end = head.findIndex((byte) => byte < 32 || byte > 126);
  const text = new TextDecoder().decode(end < 0 ? head : head.subarray(0, end));
  return text.length > 3 ? `“${text}”` : '';
}

const ipv4 = (data: Uint8Array, at: number) => [...data.subarray(at, at + 4)].join('.');

function ipv6(data: Uint8Array, at: number): string {
  const groups = Array.from({ length: 8 }, (_, i) =>
    ((data[at + 2 * i]! << 8) | data[at + 2 * i + 1]!).toString(16),
  );
  return groups
    .join(':')
    .replace(/\b0(?::0)+\b/, '')
    .replace(/^$|^:|:$/g, (part) => part + ':')
    .replace(/:{3,}/, '::');
}

/** Lines of sixteen bytes, as hexdump has them. */
export function hex(data: Uint8Array): string {
  const lines: string[] = [];
  for (let at = 0; at < data.length; at += 16) {
    const part = [...data.subarray(at, at + 16)];
    const bytes = part.map((one) => one.toString(16).padStart(2, '0')).join(' ');
    const text = part
      .map((one) => (one > 31 && one < 127 ? String.fromCharCode(one) : '.'))
      .join('');
    lines.push(`${at.toString(16).padStart(4, '0')}  ${bytes.padEnd(47)}  ${text}`);
  }
  return lines.join('\n');
}
