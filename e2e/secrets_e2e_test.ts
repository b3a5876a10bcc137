import assert from "node:assert/strict";
import { join } from "node:path";
import { CHECKOUT } from "./lab.ts";
import type { WatchReport } from "./process_watch.ts";
import { chapter, Shop, tell } from "./shop.ts";

const SERVERS = ["s1", "s2", "s3"] as const;

/** A value with characters that shells and env files like to break. */
const SECRET = `k33p-me-$quiet'"#\\x${crypto.randomUUID()}`;
/** The part of it that no quoting changes. */
const NEEDLE = SECRET.slice(-36);

/** Starts looking at all processes of the machine; the servers' are among them. */
function watch(): { stop(): Promise<WatchReport> } {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-all", "--no-config", `${CHECKOUT}/e2e/process_watch.ts`],
    stdin: "piped",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const output = new Response(child.stdout).json();
  return {
    stop: async () => {
      await child.stdin.close();
      const report: WatchReport = await output;
      await child.status;
      return report;
    },
  };
}

/** Whether a process is inside a container, where a secret belongs. */
function isInContainer(group: string): boolean {
  return /docker[-/][0-9a-f]{64}|\/docker\/|libpod/.test(group);
}

/** Files that may hold secrets: those of jiji's own, and releases to go back to. */
const HOLDS_SECRETS =
  /^(6[04]0 (root|jiji) \/etc\/jiji\/|600 root \/var\/lib\/jiji\/projects\/shop\/releases\/)/;

/** Files that keep what was said or done. */
const RECORDS_SCRIPT = "journalctl --no-pager -o cat; " +
  "find /var/log /var/lib/jiji /run/jiji /root /tmp -type f -size -4M " +
  "-not -path '/root/.ssh/*' -not -path '/var/lib/jiji/projects/*/releases/*' -exec cat {} +";

Deno.test("secrets: nowhere but in the container and in files for root alone", async (t) => {
  await using shop = await Shop.open({
    name: "e2e-secrets",
    configure: (text) =>
      text.replace(
        "    environment:\n      clear:",
        "    environment:\n      secrets: [SHOP_PASSWORD]\n      clear:",
      ),
  });
  const { lab } = shop;
  await Deno.writeTextFile(join(shop.folder, ".env"), `SHOP_PASSWORD=\`${SECRET}\`\n`);
  const said: string[] = [];

  const watching = watch();
  let report: WatchReport;
  try {
    await chapter(
      t,
      "server init, plan, deploy, redeploy, lists: all of them are watched",
      async () => {
        const commands = [
          ["server", "init", "--json"],
          ["deploy", "--version", "v1", "--plan"],
          ["deploy", "--version", "v1", "--plan", "--json"],
          ["deploy", "--version", "v1"],
          ["deploy", "--version", "v1", "--force", "--json"],
          ["services", "list", "--json"],
          ["network", "status", "--json"],
        ];
        for (const command of commands) {
          const outcome = await shop.jiji(...command);
          said.push(outcome.stdout, outcome.stderr);
          assert.equal(outcome.code, 0, outcome.stderr.replaceAll(NEEDLE, "[SECRET SHOWN]"));
        }
        // A failure shows commands and logs: the likeliest place to show too much.
        const good = await shop.setScript("#!/bin/sh\nexit 3\n");
        const failed = await shop.jiji("deploy", "--version", "v2");
        await shop.setScript(good);
        assert.equal(failed.code, 7);
        said.push(failed.stdout, failed.stderr);
      },
    );
  } finally {
    report = await watching.stop();
  }
  tell(`${report.rounds} looks at all processes, ${report.seen.length} distinct texts`);

  const secrets = new Map([["the service's secret", NEEDLE]]);
  for (const server of SERVERS) {
    const token = (await lab.on(server, ["cat", "/etc/jiji/corrosion.token"])).trim();
    const key = (await lab.on(server, ["cat", "/etc/jiji/wireguard.key"])).trim();
    assert.match(token, /^[0-9a-f]{64}$/);
    assert.equal(key.length, 44);
    secrets.set(`the Corrosion token of ${server}`, token);
    secrets.set(`the WireGuard key of ${server}`, key);
    const shared = (await lab.on(server, ["cat", "/etc/jiji/mesh.psk"])).trim();
    const state = await lab.on(server, ["wg", "show", "jiji0", "preshared-keys"]);
    const pairs = state.trim().split("\n").map((line) => line.split("\t")[1] ?? "");
    assert.equal(shared.length, 44);
    assert.equal(pairs.length, SERVERS.length - 1);
    secrets.set("the secret of the mesh", shared);
    for (const [index, pair] of pairs.entries()) {
      assert.equal(pair.length, 44, "every pair has a preshared key");
      secrets.set(`preshared key ${index} of ${server}`, pair);
    }
  }

  await chapter(t, "the watch sees what there is to see", () => {
    // The container's own process has it: if that was not seen, the watch proves nothing.
    const inContainer = report.seen.filter((seen) => isInContainer(seen.group));
    assert.ok(inContainer.some((seen) => seen.text.includes(NEEDLE)));
    assert.ok(report.seen.some((seen) => /\nkamal-proxy\ndeploy\n/.test(seen.text)));
    assert.ok(report.rounds > 200, `${report.rounds} rounds`);
  });

  await chapter(t, "in no command line or environment of a process outside the container", () => {
    for (const [what, secret] of secrets) {
      const shown = report.seen.filter((seen) =>
        !isInContainer(seen.group) && seen.text.includes(secret)
      );
      const where = shown.map((seen) =>
        `${seen.kind} ${seen.text.replaceAll(secret, "[SECRET]").slice(0, 300)} (${seen.group})`
      );
      assert.deepEqual(where, [], what);
    }
  });

  await chapter(t, "not in anything that jiji said", () => {
    const text = said.join("\n");
    for (const [what, secret] of secrets) assert.ok(!text.includes(secret), what);
  });

  await chapter(
    t,
    "not in journals, logs, audit lines, state or left files of a server",
    async () => {
      for (const server of SERVERS) {
        const text = await lab.on(server, ["sh", "-c", RECORDS_SCRIPT]);
        assert.ok(text.length > 1000, server);
        assert.match(text, /"action":"deploy"/, "the audit lines were read");
        for (const [what, secret] of secrets) {
          assert.ok(!text.includes(secret), `${what} is in a record of ${server}`);
        }
      }
    },
  );

  await chapter(t, "files that hold secrets are for root, or root and jiji, alone", async () => {
    const script = 'find / -xdev -type f -size -4M -not -path "/var/lib/docker/*" ' +
      "-not -path '/var/lib/containerd/*' -exec grep -lF -f - {} + 2>/dev/null | " +
      "while read -r file; do stat -c '%a %U %n' \"$file\"; done";
    for (const server of SERVERS) {
      const input = [...secrets.values()].join("\n");
      const found = await lab.tryOn(server, [
        "sh",
        "-c",
        `cat >/dev/shm/needles; ${
          script.replace("-f -", "-f /dev/shm/needles")
        }; rm /dev/shm/needles`,
      ], { input });
      const files = found.stdout.trim().split("\n").sort();
      tell(`${server}: ${files.join(", ")}`);
      for (const file of files) assert.match(file, HOLDS_SECRETS, file);
    }
  });

  await chapter(t, "the container has it, whole", async () => {
    const got = await lab.on("s1", [
      "docker",
      "exec",
      "shop-web",
      "sh",
      "-c",
      'printf "%s\\n" "$SHOP_PASSWORD"',
    ]);
    assert.equal(got, `${SECRET}\n`);
  });
});
