import assert from "node:assert/strict";
import fc from "fast-check";
import {
  allocateBlock,
  allocateContainerAddress,
  type Cidr,
  cidrAddress,
  cidrHas,
  cidrSize,
  cidrsOverlap,
  JijiError,
  parseCidr,
  parseIpv4,
  proxyAddress,
  renderCidr,
  renderIpv4,
  serverAddress,
} from "@jiji/core";

/** A network of this prefix length somewhere in the address space. */
const network = (prefix: fc.Arbitrary<number>): fc.Arbitrary<Cidr> =>
  fc.tuple(fc.nat(0xffffffff), prefix).map(([low, length]) => {
    const size = 2 ** (32 - length);
    return { base: Math.floor(low / size) * size, prefix: length };
  });

/** A cluster, the length of its blocks, and networks of any size that are taken in and around it. */
const cluster = network(fc.integer({ min: 14, max: 24 })).chain((whole) =>
  fc.record({
    whole: fc.constant(whole),
    blockPrefix: fc.integer({ min: whole.prefix, max: Math.min(whole.prefix + 8, 29) }),
    taken: fc.array(
      fc.oneof(
        network(fc.integer({ min: 8, max: 32 })),
        fc.tuple(fc.nat(cidrSize(whole) - 1), fc.integer({ min: whole.prefix, max: 32 })).map(
          ([offset, prefix]) => {
            const size = 2 ** (32 - prefix);
            return { base: whole.base + Math.floor(offset / size) * size, prefix };
          },
        ),
      ),
      { maxLength: 30 },
    ),
  })
);

function tryAllocate(whole: Cidr, blockPrefix: number, taken: readonly Cidr[]): Cidr | undefined {
  try {
    return allocateBlock(whole, blockPrefix, taken);
  } catch (error) {
    assert(error instanceof JijiError);
    return undefined;
  }
}

Deno.test("allocateBlock(): inside the cluster, free, and the lowest that is", () => {
  fc.assert(fc.property(cluster, ({ whole, blockPrefix, taken }) => {
    const block = tryAllocate(whole, blockPrefix, taken);
    const size = 2 ** (32 - blockPrefix);
    const end = block?.base ?? whole.base + cidrSize(whole);
    for (let base = whole.base; base < end; base += size) {
      assert(
        taken.some((other) => cidrsOverlap({ base, prefix: blockPrefix }, other)),
        "a lower block was free",
      );
    }
    if (!block) return;
    assert.equal(block.prefix, blockPrefix);
    assert(cidrHas(whole, block.base) && cidrHas(whole, block.base + size - 1));
    assert(!taken.some((other) => cidrsOverlap(block, other)));
    assert.deepEqual(parseCidr(renderCidr(block)), block, "a network without host bits");
  }));
});

Deno.test("allocateBlock(): given out one after the other, every block exactly once, then full", () => {
  fc.assert(
    fc.property(cluster, ({ whole, blockPrefix, taken }) => {
      const all = [...taken];
      const given: string[] = [];
      for (let block; (block = tryAllocate(whole, blockPrefix, all)) !== undefined;) {
        all.push(block);
        given.push(renderCidr(block));
        assert(given.length <= 2 ** (blockPrefix - whole.prefix));
      }
      assert.equal(new Set(given).size, given.length);
    }),
    { numRuns: 30 },
  );
});

Deno.test("allocateBlock(): the order of what is taken does not matter", () => {
  fc.assert(fc.property(
    cluster.chain((one) =>
      fc.tuple(fc.constant(one), fc.shuffledSubarray(one.taken, { minLength: one.taken.length }))
    ),
    ([{ whole, blockPrefix, taken }, shuffled]) => {
      assert.deepEqual(
        tryAllocate(whole, blockPrefix, taken),
        tryAllocate(whole, blockPrefix, shuffled),
      );
    },
  ));
});

const block = network(fc.integer({ min: 22, max: 29 }));

Deno.test("allocateContainerAddress(): every address of a block once, never one that is not its", () => {
  fc.assert(
    fc.property(block, (one) => {
      const taken = new Set<string>();
      const room = cidrSize(one) - 4;
      for (let count = 0; count < room; count++) {
        const address = allocateContainerAddress(one, taken);
        assert(!taken.has(address));
        assert(cidrHas(one, parseIpv4(address)!));
        taken.add(address);
      }
      const kept = [0, cidrSize(one) - 1].map((index) => cidrAddress(one, index));
      for (const address of [...kept, serverAddress(one), proxyAddress(one)]) {
        assert(!taken.has(address), address);
      }
      assert.throws(() => allocateContainerAddress(one, taken), JijiError);
    }),
    { numRuns: 20 },
  );
});

Deno.test("allocateContainerAddress(): never one in use, whatever else is in the set", () => {
  fc.assert(fc.property(
    block,
    fc.array(fc.nat(1_200), { maxLength: 40 }),
    fc.array(fc.string(), { maxLength: 3 }),
    (one, offsets, noise) => {
      const used = offsets.map((offset) => cidrAddress(one, offset % cidrSize(one)));
      const taken = new Set([...used, ...noise]);
      const room = cidrSize(one) - 4;
      if (new Set(used).size >= room) return;
      const address = allocateContainerAddress(one, taken);
      assert(!taken.has(address));
      const index = parseIpv4(address)! - one.base;
      assert(index >= 3 && index <= cidrSize(one) - 2);
    },
  ));
});

Deno.test("allocateContainerAddress(): an address given back is not the next one while others are free", () => {
  fc.assert(fc.property(block, fc.integer({ min: 0, max: 2 }), (one, kept) => {
    const taken = new Set<string>();
    for (let count = 0; count < kept; count++) taken.add(allocateContainerAddress(one, taken));
    const old = allocateContainerAddress(one, taken);
    const next = allocateContainerAddress(one, new Set([...taken, old]));
    assert.notEqual(old, next);
    // The replaced container is gone, the new one runs: a third service must not get its address.
    const room = cidrSize(one) - 4;
    if (kept + 2 < room) {
      assert.notEqual(allocateContainerAddress(one, new Set([...taken, next])), old);
    }
  }));
});

Deno.test("parseIpv4(): reads what renderIpv4() writes, and only that", () => {
  fc.assert(fc.property(fc.nat(0xffffffff), (address) => {
    assert.equal(parseIpv4(renderIpv4(address)), address);
  }));
  fc.assert(fc.property(fc.string(), (text) => {
    const address = parseIpv4(text);
    if (address !== undefined) assert.equal(renderIpv4(address), text);
  }));
});
