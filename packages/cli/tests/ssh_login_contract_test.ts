import assert from "node:assert/strict";
import { join } from "node:path";
import { ConnectionError, Secret } from "@jiji/core/runtime";
import { contract, freePort, TestSshd } from "./sshd.ts";

const LIMIT = { timeoutMs: 10_000 };

contract("SSHConnectionPool.connect(): records an unknown host key once, privately", async () => {
  await using sshd = await TestSshd.start({ hostKeys: ["ed25519", "ecdsa", "rsa"] });
  const notices: string[] = [];
  const onNotice = (text: string) => notices.push(text);
  {
    await using pool = sshd.pool(undefined, { onNotice });
    await pool.connect("s1");
  }
  const recorded = await Deno.readTextFile(sshd.knownHostsPath);
  assert.match(recorded, new RegExp(`^\\[127\\.0\\.0\\.1\\]:${sshd.port} ssh-ed25519 \\S+\\n$`));
  assert.equal((await Deno.stat(sshd.knownHostsPath)).mode! & 0o777, 0o600);
  assert.match(notices.join(), /s1: host key of .* recorded: SHA256:\S{43} \(ssh-ed25519\)/);
  {
    await using pool = sshd.pool(undefined, { onNotice });
    await pool.connect("s1");
  }
  assert.equal(await Deno.readTextFile(sshd.knownHostsPath), recorded);
  assert.equal(notices.length, 1);
});

contract("SSHConnectionPool.connect(): asks for the type of key that is recorded", async () => {
  await using sshd = await TestSshd.start({ hostKeys: ["ed25519", "ecdsa", "rsa"] });
  for (const kind of ["rsa", "ecdsa"] as const) {
    const key = await Deno.readTextFile(join(sshd.folder, `host_${kind}.pub`));
    await Deno.mkdir(join(sshd.folder, "ssh"), { recursive: true });
    await Deno.writeTextFile(sshd.knownHostsPath, `[127.0.0.1]:${sshd.port} ${key}`);
    await using pool = sshd.pool();
    const host = await pool.connect("s1");
    assert.equal((await host.run(["echo", kind], LIMIT)).stdout, `${kind}\n`);
  }
});

contract(
  "SSHConnectionPool.connect(): refuses a changed or revoked host key before login",
  async () => {
    await using sshd = await TestSshd.start();
    const other = await sshd.makeKey("other", "ed25519");
    const otherKey = await Deno.readTextFile(`${other}.pub`);
    await Deno.mkdir(join(sshd.folder, "ssh"));
    await Deno.writeTextFile(sshd.knownHostsPath, `# mine\n[127.0.0.1]:${sshd.port} ${otherKey}`);
    {
      await using pool = sshd.pool();
      await assert.rejects(pool.connect("s1"), (error) => {
        assert(error instanceof ConnectionError);
        assert.equal(error.phase, "hostkey");
        assert.equal(error.message.match(/SHA256:\S{43}/g)?.length, 2);
        assert(error.message.includes(`${sshd.knownHostsPath}:2`), error.message);
        assert.match(error.hint ?? "", /ssh-keygen -R/);
        return true;
      });
    }
    const hostKey = await Deno.readTextFile(join(sshd.folder, "host_ed25519.pub"));
    await Deno.writeTextFile(sshd.knownHostsPath, `@revoked * ${hostKey}`);
    await using pool = sshd.pool();
    await assert.rejects(pool.connect("s1"), /presents a revoked host key/);
  },
);

contract("SSHConnectionPool.connect(): a refused key names what was tried", async () => {
  await using sshd = await TestSshd.start();
  const wrong = await sshd.makeKey("wrong", "ed25519");
  await using pool = sshd.pool([sshd.server({ keyPaths: [wrong] })]);
  await assert.rejects(pool.connect("s1"), (error) => {
    assert(error instanceof ConnectionError);
    assert.equal(error.phase, "auth");
    assert.match(error.message, /refused the login; tried wrong$/);
    return true;
  });
  await using absent = sshd.pool([sshd.server({ keyPaths: ["/no/such/key"] })]);
  await assert.rejects(absent.connect("s1"), /\/no\/such\/key: there is no such file/);
});

contract(
  "SSHConnectionPool.connect(): opens encrypted, ECDSA and RSA keys, and key data",
  async () => {
    await using sshd = await TestSshd.start();
    const kinds = [["e1", "ecdsa"], ["e2", "ecdsa"], ["e3", "ecdsa"], ["e4", "ecdsa"], [
      "r",
      "rsa",
    ]];
    for (const [name, kind] of kinds as [string, "ecdsa" | "rsa"][]) {
      const path = await sshd.makeKey(name, kind, "pass phrase");
      await sshd.authorize(path);
      const passphrase = new Secret("pass phrase");
      await using pool = sshd.pool([sshd.server({ keyPaths: [path], passphrase })]);
      await pool.connect("s1");
      await using locked = sshd.pool([sshd.server({ keyPaths: [path] })]);
      await assert.rejects(locked.connect("s1"), /it is encrypted; set key_passphrase/);
    }
    const data = new Secret(await Deno.readTextFile(join(sshd.folder, "login")));
    await using pool = sshd.pool([sshd.server({ keyPaths: [], keyData: [data] })]);
    await pool.connect("s1");
  },
);

contract("SSHConnectionPool.connect(): uses the agent, unless keysOnly", async () => {
  await using sshd = await TestSshd.start();
  const socket = join(sshd.folder, "agent");
  const agent = new Deno.Command("ssh-agent", { args: ["-D", "-a", socket], stdout: "null" })
    .spawn();
  try {
    const env = { HOME: sshd.folder, SSH_AUTH_SOCK: socket };
    await addToAgent(join(sshd.folder, "login"), socket);
    await using pool = sshd.pool([sshd.server({ keyPaths: [] })], { env });
    const host = await pool.connect("s1");
    assert.equal((await host.run(["echo", "hi"], LIMIT)).stdout, "hi\n");
    const strict = [sshd.server({ keyPaths: [], keysOnly: true })];
    await using keysOnly = sshd.pool(strict, { env });
    await assert.rejects(keysOnly.connect("s1"), /there is no key to log in to s1 as root/);
  } finally {
    agent.kill("SIGTERM");
    await agent.status;
  }
});

async function addToAgent(key: string, socket: string): Promise<void> {
  const deadlineMs = performance.now() + 5_000;
  while (performance.now() < deadlineMs) {
    const { success } = await new Deno.Command("ssh-add", {
      args: ["-q", key],
      env: { SSH_AUTH_SOCK: socket },
      stderr: "null",
    }).output();
    if (success) return;
  }
  throw new Error("ssh-agent does not answer");
}

contract(
  "SshHost: a cut connection rejects commands under way, and connect() makes a new one",
  async () => {
    await using sshd = await TestSshd.start();
    await using pool = sshd.pool();
    const host = await pool.connect("s1");
    const running = host.run(["sleep", "30"], LIMIT);
    const lost = assert.rejects(
      running,
      (error) => error instanceof ConnectionError && error.phase === "lost",
    );
    await host.run(["true"], LIMIT);
    await sshd.cutSessions();
    await lost;
    await assert.rejects(host.run(["true"], LIMIT), /the SSH connection was lost/);
    const again = await pool.connect("s1");
    assert.equal((await again.run(["echo", "back"], LIMIT)).stdout, "back\n");
  },
);

contract("SSHConnectionPool.connect(): names the phase of every failure", async () => {
  await using sshd = await TestSshd.start();
  const phaseOf = async (server: ReturnType<typeof sshd.server>) => {
    await using pool = sshd.pool([server]);
    try {
      await pool.connect("s1");
    } catch (error) {
      assert(error instanceof ConnectionError);
      return error.phase;
    }
    return "none";
  };
  assert.equal(await phaseOf(sshd.server({ port: freePort() })), "tcp");
  assert.equal(await phaseOf({ ...sshd.server(), host: "no-such-host.invalid" }), "dns");
  using silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const server = sshd.server({ port: silent.addr.port, connectTimeoutMs: 200 });
  assert.equal(await phaseOf(server), "timeout");
});

contract("SSHConnectionPool.connect(): goes through a jump host and a proxy command", async () => {
  await using jump = await TestSshd.start();
  await using sshd = await TestSshd.start();
  await Deno.copyFile(join(sshd.folder, "login.pub"), join(jump.folder, "authorized_keys"));
  const servers = [
    sshd.server({ jump: `root@127.0.0.1:${jump.port}` }, "jumped"),
    sshd.server({
      proxyCommand: "bash -c 'exec 3<>/dev/tcp/%h/%p; cat <&3 & cat >&3; kill $!'",
    }, "piped"),
  ];
  await using pool = sshd.pool(servers);
  for (const { name } of servers) {
    const host = await pool.connect(name);
    assert.equal((await host.run(["echo", name], LIMIT)).stdout, `${name}\n`);
  }
});

contract("SSHConnectionPool.connect(): reads ssh_config, jiji's own settings win", async () => {
  await using sshd = await TestSshd.start();
  const file = join(sshd.folder, "config");
  await Deno.writeTextFile(
    file,
    `Host s1\n  HostName 127.0.0.1\n  Port ${sshd.port}\n  User nobody\n` +
      `  IdentityFile ${join(sshd.folder, "login")}\n`,
  );
  const server = sshd.server({ keyPaths: [], port: 22, portGiven: false, sshConfigFiles: [file] });
  await using pool = sshd.pool([{ ...server, host: "s1" }]);
  const host = await pool.connect("s1");
  assert.equal(host.address, `root@127.0.0.1:${sshd.port}`);
});
