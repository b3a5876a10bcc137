/** Messages between simulated servers: most of them as objects, some as the bytes they are. */
import { PROBE_WIRE, type ProbeMessage, type ProbeWire } from "../src/liveness/liveness_prober.ts";

/** Of so many messages one becomes bytes and is read again. */
const BYTES_EVERY = 32;

/** An empty datagram that brings its message along. */
class Carrier extends Uint8Array<ArrayBuffer> {
  readonly message: ProbeMessage;

  constructor(message: ProbeMessage) {
    super(new ArrayBuffer(0));
    this.message = message;
  }
}

/** The wire of a cluster. */
export class SimWire implements ProbeWire {
  #count = 0;

  /** The message's bytes, or something that stands for them. */
  encode(message: Omit<ProbeMessage, "jiji">): Uint8Array<ArrayBuffer> {
    this.#count += 1;
    if (this.#count % BYTES_EVERY === 0) return PROBE_WIRE.encode(message);
    return new Carrier({ jiji: 1, ...message });
  }

  /** The message again. */
  decode(bytes: Uint8Array): ProbeMessage | undefined {
    return bytes instanceof Carrier ? bytes.message : PROBE_WIRE.decode(bytes);
  }
}
