/** What servers tell each other of those they probe, and what follows from it. Pure. */

/** A server's word: which of those it probes are silent. */
export interface Rumor {
  /** Whose word it is. */
  readonly id: string;
  /** Grows with each new word of this server. */
  readonly version: number;
  readonly silent: readonly string[];
}

interface Heard extends Rumor {
  /** Monotonic ms. */
  readonly atMs: number;
  /** Messages that are still to carry it. */
  sends: number;
}

/** Each word is carried by this many messages of a server; its neighbours do the same. */
const SENDS = 12;
/** Words in one message; with names of ordinary length it stays below 1,200 octets. */
export const RUMORS_MAX = 6;
/** Witnesses that it takes at least. */
const WITNESSES_MIN = 2;
/** Share of the watchers that can be heard which must agree. */
const WITNESSES_SHARE = 1 / 3;

/** Words of other servers, the newest of each, and the own one. */
export class RumorMill {
  readonly #self: string;
  readonly #heard = new Map<string, Heard>();
  /** Words that messages are still to carry, by how many; in each, those that came first. */
  readonly #due: readonly Set<Heard>[] = Array.from({ length: SENDS + 1 }, () => new Set());
  /** Who says of a server that it is silent. */
  readonly #accusers = new Map<string, Set<string>>();
  #own: readonly string[] = [];
  #version = 0;

  constructor(self: string) {
    this.#self = self;
  }

  /** Forgets words of servers that are no members any more. */
  keep(members: ReadonlySet<string>): void {
    for (const id of this.#heard.keys()) if (!members.has(id)) this.#forget(id);
  }

  #forget(id: string): void {
    const word = this.#heard.get(id);
    if (!word) return;
    this.#heard.delete(id);
    this.#due[word.sends]?.delete(word);
    for (const silent of word.silent) {
      const accusers = this.#accusers.get(silent);
      accusers?.delete(id);
      if (accusers?.size === 0) this.#accusers.delete(silent);
    }
  }

  #remember(rumor: Rumor, atMs: number): void {
    this.#forget(rumor.id);
    const word = { ...rumor, atMs, sends: SENDS };
    this.#heard.set(word.id, word);
    this.#due[SENDS]?.add(word);
    for (const silent of word.silent) {
      const accusers = this.#accusers.get(silent);
      if (accusers) accusers.add(word.id);
      else this.#accusers.set(silent, new Set([word.id]));
    }
  }

  /** Servers of which anybody says that they are silent: no others can be, by what is heard. */
  get accused(): Iterable<string> {
    return this.#accusers.keys();
  }

  /** Takes the own word; a changed one goes out. `atMs` is wall time: it outlives a restart. */
  say(silent: readonly string[], o: { readonly wallMs: number; readonly nowMs: number }): boolean {
    if (silent.length === this.#own.length && silent.every((id) => this.#own.includes(id))) {
      return false;
    }
    this.#own = [...silent];
    this.#speak(o);
    return true;
  }

  #speak(o: { readonly wallMs: number; readonly nowMs: number }): void {
    this.#version = Math.max(this.#version + 1, o.wallMs);
    const word = { id: this.#self, version: this.#version, silent: this.#own };
    this.#remember(word, o.nowMs);
  }

  /**
   * Takes words from a message; whether one was news. A word that claims to be ours, from before a
   * restart of a daemon with a later clock, is answered with a newer one.
   */
  take(rumors: readonly Rumor[], o: { readonly wallMs: number; readonly nowMs: number }): boolean {
    let news = false;
    for (const rumor of rumors) {
      if (rumor.id === this.#self) {
        if (rumor.version <= this.#version) continue;
        this.#version = rumor.version;
        this.#speak(o);
        news = true;
        continue;
      }
      const known = this.#heard.get(rumor.id);
      if (known && known.version >= rumor.version) continue;
      this.#remember(rumor, o.nowMs);
      news = true;
    }
    return news;
  }

  /** Words for the next message: those that were sent least often first. */
  next(): Rumor[] {
    const due: Heard[] = [];
    for (let sends = SENDS; sends > 0 && due.length < RUMORS_MAX; sends--) {
      for (const word of this.#due[sends]!) {
        if (due.length === RUMORS_MAX) break;
        due.push(word);
      }
    }
    return due.map((word) => {
      this.#due[word.sends]!.delete(word);
      word.sends -= 1;
      if (word.sends > 0) this.#due[word.sends]!.add(word);
      return { id: word.id, version: word.version, silent: word.silent };
    });
  }

  /**
   * Whether watchers say that a server is silent: at least two, and a third of those that are not
   * silent themselves. What was said before `heardAtMs`, when the server itself was heard, is over.
   */
  isSilent(
    id: string,
    o: {
      readonly watchers: readonly string[];
      readonly silent: ReadonlySet<string>;
      readonly heardAtMs: number;
    },
  ): boolean {
    const accusers = this.#accusers.get(id);
    if (!accusers || accusers.size < WITNESSES_MIN) return false;
    let [able, witnesses] = [0, 0];
    for (const watcher of o.watchers) {
      if (o.silent.has(watcher)) continue;
      able += 1;
      if (!accusers.has(watcher)) continue;
      const word = this.#heard.get(watcher);
      if (word !== undefined && word.atMs >= o.heardAtMs) witnesses += 1;
    }
    return witnesses >= Math.max(WITNESSES_MIN, Math.ceil(able * WITNESSES_SHARE));
  }
}
