import assert from "node:assert/strict";
import { groupPrefixes } from "../cgroups.ts";
import { shellQuote, shellWords } from "../detached.ts";
import { operatorEnvironment, shellEnvironment } from "../laptop.ts";
import { labPaths } from "../names.ts";
import { argvBoot, renderBootScript } from "../server.ts";
import { renderStatus } from "../status.ts";

const boot = {
  machine: "jiji-x-s1",
  hostname: "s1",
  folder: "/lab/s1",
  network: "/run/netns/jiji.x.s1",
  repository: "/cache/repo",
};

Deno.test("argvBoot(): boots in the server's own network with its engines' folders on disk", () => {
  const argv = argvBoot(boot);
  assert.equal(argv[0], "systemd-nspawn");
  assert.ok(argv.includes("--network-namespace-path=/run/netns/jiji.x.s1"));
  assert.ok(argv.includes("--bind=/lab/s1/docker:/var/lib/docker"));
  assert.ok(argv.includes("--bind-ro=/cache/repo:/srv/apt"));
});

Deno.test("renderBootScript(): mounts the root first and becomes systemd-nspawn last", () => {
  const lower = "/a:/b";
  const script = renderBootScript({ ...boot, lower, kind: "hybrid", argv: argvBoot(boot) });
  const lines = script.split("\n");
  assert.match(
    lines[0] ?? "",
    /^mount -t overlay .*lowerdir=\/a:\/b,upperdir=\/lab\/s1\/upper,workdir=\/lab\/s1\/work/,
  );
  assert.match(lines.at(-1) ?? "", /^exec systemd-nspawn /);
});

Deno.test("shellQuote(): every word comes out of a shell as it went in", async () => {
  const words = ["plain", "", "a b", "it's", '"', "$HOME", "`id`", "a\nb", "*", "é"];
  const { stdout } = await new Deno.Command("sh", {
    args: ["-c", `printf '%s\\0' ${shellWords(words)}`],
  }).output();
  assert.deepEqual(new TextDecoder().decode(stdout).split("\0").slice(0, -1), words);
  assert.equal(shellQuote("plain"), "plain");
});

Deno.test("operatorEnvironment(): jiji of this build first on PATH, no agent of the user", () => {
  const environment = operatorEnvironment(labPaths("x"), {
    checkout: "/src",
    path: "/usr/bin",
    home: "/root",
    cache: "/cache",
    corrosion: "/cache/corrosion",
    denoDir: undefined,
  });
  assert.match(environment["PATH"] ?? "", /^\/src\/build:/);
  assert.equal(environment["DENO_DIR"], "/root/.cache/deno");
  const shell = shellEnvironment(environment);
  assert.match(shell, /^unset SSH_AUTH_SOCK$/m);
  assert.match(shell, /^export JIJI_CORROSION=\/cache\/corrosion$/m);
});

Deno.test("groupPrefixes(): names every group from the top", () => {
  assert.deepEqual(groupPrefixes("a/b/c"), ["a", "a/b", "a/b/c"]);
});

Deno.test("renderStatus(): one line a server, and the cuts", () => {
  const text = renderStatus({
    lab: "x",
    phase: "up",
    state: "/lab",
    servers: [{
      name: "s1",
      address: "203.0.113.11",
      engine: "none",
      state: "off",
      processes: 0,
      memoryBytes: 12_300_000,
      cpuSeconds: 1.25,
    }],
    cuts: [{ from: "s1", to: "*" }, { from: "s1", to: "s2" }],
  });
  assert.match(text, /^s1 +off +203\.0\.113\.11 +none +0 +12 MB +1\.[23] s$/m);
  assert.match(text, /s1 ⨯ everyone, s1 ⨯ s2/);
});
