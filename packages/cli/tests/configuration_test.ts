import assert from "node:assert/strict";
import { ConfigError } from "../src/lib/configuration/config_issue.ts";
import { configText, configurationOf, problemsOf } from "./configuration_fixture.ts";

Deno.test("Configuration: gives every value with its default", () => {
  const configuration = configurationOf(configText());
  configuration.validate();
  assert.equal(configuration.project, "shop");
  assert.equal(configuration.file, ".jiji/deploy.yml");
  assert.equal(configuration.builder.engine, "docker");
  assert.equal(configuration.builder.registry.imagePrefix, "localhost:31270");
  assert.deepEqual([...configuration.servers.keys()], ["s1", "s2"]);
  assert.equal(configuration.network.clusterCidrText, "10.210.0.0/16");
  assert.equal(configuration.network.blockPrefix, 24);
  assert.equal(configuration.deploy.maxParallel, 10);
  assert.equal(configuration.deploy.onFailure, "rollback");
  const web = configuration.services.get("web")!;
  assert.equal(web.retain, 3);
  assert.equal(web.restart, "unless-stopped");
  assert.equal(web.stopGraceSeconds, 10);
  assert.equal(web.proxy, undefined);
  assert.deepEqual(web.healthcheck, {
    kind: "engine",
    intervalMs: 5_000,
    timeoutMs: 5_000,
    deployTimeoutMs: 30_000,
  });
  assert.equal(web.environment, web.environment, "sections are kept");
});

Deno.test("Configuration: reading a valid section works beside an invalid one", () => {
  const configuration = configurationOf(configText(undefined, "deploy:\n  max_parallel: 0\n"));
  assert.equal(configuration.services.get("web")!.image, "nginx:1.29");
  assert.throws(() => configuration.deploy.maxParallel, ConfigError);
  assert.throws(() => configuration.validate(), ConfigError);
});

Deno.test("Configuration.validate(): lists every problem once, in the order of the file", async (t) => {
  const text = `project: Shop
builder:
  engine: dokcer
servers:
  s1:
    hots: 203.0.113.11
    password: hunter2
services:
  web:
    image: nginx
    build: .
    hosts: [s11]
    stop_first: yes
    ports: ["3000:99999"]
    helthcheck: 3
    memory: 5
    proxy:
      app_port: 300o
      host: a b
`;
  let message = "";
  try {
    configurationOf(text).validate();
  } catch (error) {
    assert(error instanceof ConfigError);
    assert.equal(error.exitCode, 3);
    message = error.message;
    const positions = error.issues.map((issue) => issue.line * 1_000 + issue.column);
    assert.deepEqual(positions, positions.toSorted((a, b) => a - b));
  }
  assert(!message.includes("hunter2"), "a literal password is masked");
  await t.assertSnapshot(message);
});

const SERVICE_PROBLEMS: readonly [name: string, service: string, problem: RegExp][] = [
  ["neither image nor build", "{hosts: [s1]}", /neither image nor build/],
  ["both", "{image: a, build: ., hosts: [s1]}", /image and build exclude each other/],
  ["no hosts", "{image: a}", /hosts is missing/],
  ["empty hosts", "{image: a, hosts: []}", /no server is listed/],
  ["mistyped server", "{image: a, hosts: [s3]}", /s3 is not a server — did you mean s1\?/],
  ["server twice", "{image: a, hosts: [s1, s1]}", /hosts\[1\]: s1 is listed twice/],
  ["port out of range", "{image: a, hosts: [s1], ports: [70000]}", /not a port mapping/],
  ["port twice", "{image: a, hosts: [s1], ports: [80, 80]}", /80 is listed twice/],
  [
    "server port while switching",
    "{image: a, hosts: [s1], ports: ['8080:80']}",
    /stop_first: true/,
  ],
  ["volume", "{image: a, hosts: [s1], volumes: ['./x:/y']}", /\.\/x:\/y is not a volume/],
  ["relative target", "{image: a, hosts: [s1], volumes: ['x:y']}", /is not a volume/],
  ["file outside", "{image: a, hosts: [s1], files: ['../x:/y']}", /leaves the project/],
  ["absolute file", "{image: a, hosts: [s1], files: [{local: /etc/x, remote: /y}]}", /leaves/],
  ["file mode", "{image: a, hosts: [s1], files: [{local: x, remote: /y, mode: 9}]}", /file mode/],
  ["mounted twice", "{image: a, hosts: [s1], volumes: ['a:/x', 'b:/x']}", /\/x is mounted by/],
  ["unit missing", "{image: a, hosts: [s1], stop_grace: 10}", /write the unit: 10s, 10m/],
  ["unknown unit", "{image: a, hosts: [s1], stop_grace: 10d}", /not a length of time/],
  ["restart", "{image: a, hosts: [s1], restart: allways}", /did you mean always\?/],
  ["retain", "{image: a, hosts: [s1], retain: 0}", /a whole number from 1/],
  ["memory", "{image: a, hosts: [s1], memory: 1x}", /not an amount of memory/],
  ["memory in bb", "{image: a, hosts: [s1], memory: 512bb}", /not an amount of memory/],
  ["too little memory", "{image: a, hosts: [s1], memory: 5m}", /at least 6m/],
  ["odd gpus", "{image: a, hosts: [s1], gpus: nvidia}", /not a choice of GPUs/],
  ["no gpus", "{image: a, hosts: [s1], gpus: 0}", /not a choice of GPUs/],
  ["device of a device", "{image: a, hosts: [s1], devices: ['/dev/a:b']}", /not a device/],
  ["log driver", "{image: a, hosts: [s1], logging: {driver: 'json file'}}", /not a log driver/],
  ["no log driver", "{image: a, hosts: [s1], logging: {options: {a: b}}}", /driver is missing/],
  [
    "log option",
    "{image: a, hosts: [s1], logging: {driver: local, options: {'a=b': 1}}}",
    /no log driver takes/,
  ],
  [
    "check of the host's network",
    "{image: a, hosts: [s1], network_mode: host, healthcheck: {tcp: true, port: 80}}",
    /a check by tcp needs network_mode bridge/,
  ],
  ["cpus", "{image: a, hosts: [s1], cpus: -1}", /not a number of processors/],
  ["jiji's labels", "{image: a, hosts: [s1], labels: {jiji.x: 1}}", /belong to jiji/],
  ["network mode", "{image: a, hosts: [s1], network_mode: mesh}", /not a network mode/],
  [
    "ports on host network",
    "{image: a, hosts: [s1], network_mode: host, ports: [1]}",
    /ports needs/,
  ],
  ["open quote", '{image: a, hosts: [s1], command: "sh -c \'x"}', /a quote is not closed/],
  ["unset in command", "{image: a, hosts: [s1], command: 'x ${NO}'}", /\$\{NO\} has no value/],
  [
    "secret in command",
    "{image: a, hosts: [s1], command: 'x ${KEY}', environment: {secrets: [KEY]}}",
    /KEY is a secret/,
  ],
  [
    "scale with stop_first",
    "{image: a, hosts: [s1], scale: 2, stop_first: true}",
    /can.t share stop_first/,
  ],
  ["other tools' key", "{image: a, servers: [s1], hosts: [s1]}", /did you mean hosts\?/],
  ["variable name", "{image: a, hosts: [s1], environment: {clear: {A-B: 1}}}", /not a variable/],
  ["empty variable", "{image: a, hosts: [s1], environment: {clear: {A: }}}", /empty is ""/],
  [
    "clear and secret",
    "{image: a, hosts: [s1], environment: {clear: {A: 1}, secrets: [A]}}",
    /A is listed under secrets too/,
  ],
  ["two kinds of check", "{image: a, hosts: [s1], healthcheck: {path: /, cmd: x}}", /exclude/],
  [
    "check without port",
    "{image: a, hosts: [s1], healthcheck: {path: /}}",
    /the check needs a port/,
  ],
  ["check path", "{image: a, hosts: [s1], ports: [1], healthcheck: {path: up}}", /starts with \//],
];

for (const [name, service, problem] of SERVICE_PROBLEMS) {
  Deno.test(`ServiceConfiguration: refuses ${name}`, () => {
    const found = problemsOf(configText(`  web: ${service}\n`));
    assert(found.some((text) => problem.test(text)), found.join("\n") || "no problem was found");
  });
}

const PROXY_PROBLEMS: readonly [name: string, proxy: string, problem: RegExp][] = [
  ["no app_port", "{host: a.com}", /app_port is missing/],
  [
    "unknown app_port",
    "{app_port: 1}",
    /1 is not a container port .* one of its ports: 3000, 9000/,
  ],
  ["host and hosts", "{app_port: 3000, host: a.com, hosts: [b.com]}", /host and hosts exclude/],
  ["host twice", "{app_port: 3000, hosts: [a.com, A.com]}", /a\.com is listed twice/],
  ["URL as host", "{app_port: 3000, host: 'https://a.com'}", /not a host name/],
  ["ssl without host", "{app_port: 3000, ssl: true}", /ssl needs a host name/],
  ["ssl for a wildcard", "{app_port: 3000, host: '*.a.com', ssl: true}", /wildcard/],
  ["ssl with prefix", "{app_port: 3000, host: a.com, path_prefix: /x, ssl: true}", /root path/],
  [
    "half a certificate",
    "{app_port: 3000, host: a.com, ssl: {certificate_pem: A}}",
    /neither true, false nor a pair/,
  ],
  [
    "a certificate itself",
    "{app_port: 3000, host: a.com, ssl: {certificate_pem: -----BEGIN, private_key_pem: B}}",
    /not a variable name/,
  ],
  [
    "certificate below a prefix",
    "{app_port: 3000, host: a.com, path_prefix: /x, ssl: {certificate_pem: A, private_key_pem: B}}",
    /root path/,
  ],
  ["ssl_redirect alone", "{app_port: 3000, host: a.com, ssl_redirect: false}", /without ssl/],
  [
    "foreign canonical host",
    "{app_port: 3000, host: a.com, canonical_host: www.a.com}",
    /www\.a\.com is not one of the target's hosts — one of: a\.com/,
  ],
  ["canonical host of any", "{app_port: 3000, canonical_host: a.com}", /not one of.*— add it/],
  [
    "canonical wildcard",
    "{app_port: 3000, hosts: ['*.a.com'], canonical_host: '*.a.com'}",
    /is not one of the target's hosts/,
  ],
  ["nothing to strip", "{app_port: 3000, strip_path_prefix: false}", /no path_prefix to strip/],
  [
    "request limit alone",
    "{app_port: 3000, buffering: {max_request_body: 1m}}",
    /only for bodies that are buffered — add `requests: true`/,
  ],
  [
    "answer limit at requests",
    "{app_port: 3000, buffering: {requests: true, max_response_body: 1m}}",
    /add `responses: true`/,
  ],
  ["memory for nothing", "{app_port: 3000, buffering: {memory: 1m}}", /nothing is buffered/],
  ["odd size", "{app_port: 3000, buffering: {requests: true, memory: lots}}", /amount of data/],
  ["odd header", "{app_port: 3000, log_headers: {request: ['a b']}}", /not a header name/],
  ["limit of others", "{app_port: 3000, max_request_body: 1m}", /write it below `buffering`/],
  ["odd ssl", "{app_port: 3000, host: a.com, ssl: maybe}", /neither true, false nor a pair/],
  ["targets and keys", "{app_port: 3000, targets: [{app_port: 3000}]}", /app_port and targets/],
  ["no targets", "{targets: []}", /the list is empty/],
  [
    "port in two targets",
    "{targets: [{app_port: 3000}, {app_port: 3000, host: a.b}]}",
    /another target/,
  ],
  ["prefix", "{app_port: 3000, path_prefix: x}", /starts with \//],
  ["Kamal's key", "{app_port: 3000, healthcheck: {cmd: x, cmd_runtime: docker}}", /remove this/],
];

for (const [name, proxy, problem] of PROXY_PROBLEMS) {
  Deno.test(`ProxyConfiguration: refuses ${name}`, () => {
    const service = `  web: {image: a, hosts: [s1], ports: [3000, 9000], proxy: ${proxy}}\n`;
    const found = problemsOf(configText(service));
    assert(found.some((text) => problem.test(text)), found.join("\n") || "no problem was found");
  });
}

Deno.test("ProxyConfiguration.targets: fills in what is not written", () => {
  const configuration = configurationOf(configText(`  web:
    image: a
    hosts: [s1]
    ports: [3000, 9000/tcp]
    proxy:
      targets:
        - app_port: 3000
          hosts: [Shop.Example.com]
          path_prefix: /api/
          response_timeout: 90s
          healthcheck: {interval: 2s, deploy_timeout: 2m}
        - app_port: 9000
          host: "*.a.com"
          healthcheck: {tcp: true}
`));
  configuration.validate();
  const times = { timeoutMs: 5_000 };
  assert.deepEqual(configuration.services.get("web")!.proxy!.targets, [{
    appPort: 3000,
    hosts: ["shop.example.com"],
    pathPrefix: "/api",
    ssl: false,
    healthcheck: {
      kind: "http",
      port: 3000,
      path: "/up",
      intervalMs: 2_000,
      deployTimeoutMs: 120_000,
      ...times,
    },
    responseTimeoutMs: 90_000,
  }, {
    appPort: 9000,
    hosts: ["*.a.com"],
    ssl: false,
    healthcheck: { kind: "tcp", port: 9000, intervalMs: 1_000, deployTimeoutMs: 30_000, ...times },
  }]);
});

Deno.test("Configuration.validate(): refuses a route that two services of a server claim", () => {
  const service = (name: string, host: string, proxy: string) =>
    `  ${name}: {image: a, hosts: [${host}], ports: [1], proxy: {app_port: 1${proxy}}}\n`;
  const both = service("a", "s1", ", host: x.com") + service("b", "s1", ", host: X.com");
  assert.match(problemsOf(configText(both)).join(), /b\.proxy: x\.com on s1 leads to a already/);
  const apart = service("a", "s1", ", host: x.com") + service("b", "s2", ", host: x.com") +
    service("c", "s1", ", host: x.com, path_prefix: /c") + service("d", "s1", "");
  assert.deepEqual(problemsOf(configText(apart)), []);
});

Deno.test("Configuration.validate(): refuses server ports and DNS names that collide", () => {
  const service = (name: string, ports: string) =>
    `  ${name}: {image: a, hosts: [s1], stop_first: true, ports: ["${ports}"]}\n`;
  const same = configText(service("a", "8080:1") + service("b", "127.0.0.1:8080:2"));
  assert.match(problemsOf(same).join(), /port 8080 of s1 belongs to a already/);
  const apart = configText(service("a", "10.0.0.1:80:1") + service("b", "127.0.0.1:80:1/tcp"));
  assert.deepEqual(problemsOf(apart), []);
  const names = configText("  web: {image: a, hosts: [s1]}\n  web-s1: {image: a, hosts: [s1]}\n");
  assert.match(problemsOf(names).join(), /shop-web-s1 is the name of web on s1 already/);
  const scaled = (scale: number) =>
    configText(
      `  web: {image: a, hosts: [s1], scale: ${scale}}\n  web-2: {image: a, hosts: [s2]}\n`,
    );
  assert.match(problemsOf(scaled(2)).join(), /shop-web-2 is the name of instance 2 of web already/);
  assert.deepEqual(problemsOf(scaled(1)), []);
});

const TOP_PROBLEMS: readonly [name: string, text: string, problem: RegExp][] = [
  [
    "list of servers",
    "project: a\nbuilder: {engine: docker}\nservers: [{host: a}]\n",
    /is not a map/,
  ],
  ["list as section", configText(undefined, "ssh: []\n"), /\[\] is not a map of keys/],
  ["no project", "builder: {engine: docker}\nservers: {a: {host: b}}\n", /project is missing/],
  ["no servers", "project: a\nbuilder: {engine: docker}\nservers: {}\n", /no server is named/],
  ["host twice", configText().replace("203.0.113.12", "203.0.113.11"), /is the host of s1 already/],
  ["user in host", configText().replace("203.0.113.12", "root@x"), /not a host name or address/],
  ["unset host", configText().replace("203.0.113.12", "S2_HOST"), /S2_HOST is not set/],
  ["server name", configText().replace("  s2:", "  S_2:"), /S_2 is not a server name/],
  ["mesh off", configText(undefined, "network: {enabled: false}\n"), /not supported yet/],
  ["host bits", configText(undefined, "network: {cluster_cidr: 10.0.0.1/16}\n"), /IPv4 network/],
  ["tiny cluster", configText(undefined, "network: {cluster_cidr: 10.0.0.0/30}\n"), /can't be cut/],
  ["loopback", configText(undefined, "network: {cluster_cidr: 127.0.0.0/16}\n"), /reserved/],
  [
    "no address",
    configText(undefined, "network: {dns: {forward: {corp.example: [dns1]}}}\n"),
    /dns1.* is not an address/,
  ],
  [
    "own zone",
    configText(undefined, "network: {dns: {forward: {jiji: [10.0.0.53]}}}\n"),
    /jiji is not/,
  ],
  ["no resolver", configText(undefined, "network: {dns: {forward: {a.b: []}}}\n"), /no resolver/],
  [
    "a forwarded part of the own domain",
    configText(undefined, "network: {service_domain: lan, dns: {forward: {a.lan: [10.0.0.53]}}}\n"),
    /a\.lan is not a domain that can be forwarded/,
  ],
  [
    "a domain of two words",
    configText(undefined, "network: {service_domain: a.b}\n"),
    /a\.b is not a domain for services/,
  ],
  [
    "a domain with a meaning of its own",
    configText(undefined, "network: {service_domain: local}\n"),
    /local has a meaning of its own/,
  ],
  ["jump twice", configText(undefined, "ssh: {proxy: a, proxy_command: '%h %p'}\n"), /exclude/],
  ["ssh options", configText(undefined, "ssh: {options: {}}\n"), /ssh_config file/],
  ["key data", configText(undefined, "ssh: {key_data: [CI_KEY]}\n"), /CI_KEY is not set/],
  [
    "remote registry",
    configText().replace("docker\n", "docker\n  registry: {type: remote}\n"),
    /server is missing/,
  ],
  ["adapter", configText(undefined, "secrets: {adapter: vault}\n"), /not one of doppler/],
  [
    "list of services",
    "project: a\nbuilder: {engine: docker}\nservers: {a: {host: b}}\nservices: [a]\n",
    /not a map/,
  ],
];

for (const [name, text, problem] of TOP_PROBLEMS) {
  Deno.test(`Configuration.validate(): refuses ${name}`, () => {
    const found = problemsOf(text);
    assert(found.some((line) => problem.test(line)), found.join("\n") || "no problem was found");
  });
}

Deno.test("ServiceConfiguration: gives paths, volumes, command and numbers as written", () => {
  const configuration = configurationOf(configText(`  db:
    build: {context: ./db, dockerfile: prod.Dockerfile, args: {V: 1.10}}
    hosts: [s2]
    stop_first: true
    ports: ["127.0.0.1:5432:5432", 53/udp]
    volumes: ["data:/var/lib/x:z", "/srv/y:/y"]
    files: ["etc/a.conf:/etc/a.conf:ro"]
    environment: {clear: {VERSION: 1.10, ON: true, PORT: 8080}}
    command: run --port "\${PORT}" 'a b' $\${X}
    stop_grace: 1500ms
`));
  configuration.validate();
  const db = configuration.services.get("db")!;
  assert.deepEqual(db.build, {
    context: "/project/db",
    dockerfile: "/project/db/prod.Dockerfile",
    args: { V: "1.10" },
    secrets: [],
  });
  assert.deepEqual(db.volumes, ["shop-db-data:/var/lib/x:z", "/srv/y:/y"]);
  assert.deepEqual(db.command, ["run", "--port", "8080", "a b", "${X}"]);
  assert.deepEqual(db.environment.clear, { VERSION: "1.10", ON: "true", PORT: "8080" });
  assert.equal(db.stopGraceSeconds, 2);
  assert.equal(db.files[0]!.local, "/project/etc/a.conf");
  assert.deepEqual(db.ports[0], {
    hostIp: "127.0.0.1",
    hostPort: 5432,
    containerPort: 5432,
    protocol: "tcp",
    text: "127.0.0.1:5432:5432",
  });
  assert.equal(db.ports[1]!.protocol, "udp");
  assert.match(db.positionOf(["stop_grace"]), /^\.jiji\/deploy\.yml:\d+:17$/);
});

Deno.test("EnvironmentConfiguration: a service's values win, secrets are joined", () => {
  const text = configText(
    "  web: {image: a, hosts: [s1], environment: {clear: {A: two, D: x}, secrets: [C]}}\n",
    "environment: {clear: {A: one, B: b}, secrets: [S, D]}\n",
  );
  const { environment } = configurationOf(text).services.get("web")!;
  assert.deepEqual(environment.clear, { A: "two", B: "b", D: "x" });
  assert.deepEqual(environment.secretNames, ["C", "S"]);
});

Deno.test("EnvironmentConfiguration.resolveSecrets(): names all that are missing, and where it looked", () => {
  const text = configText("  web: {image: a, hosts: [s1], environment: {secrets: [A, B, C]}}\n");
  const services = (options: Parameters<typeof configurationOf>[1]) =>
    configurationOf(text, options).services.get("web")!.environment;
  const fileValues = { A: "file-a" };
  assert.throws(
    () => services({ fileValues, hostValues: { B: "host-b" } }).resolveSecrets(),
    (error) =>
      error instanceof ConfigError &&
      /secrets B, C are not set; looked in \.env$/.test(error.message) &&
      /--host-env/.test(error.hint ?? ""),
  );
  const resolved = services({
    fileValues,
    hostValues: { A: "host-a", B: "host-b", C: "c" },
    hostAllowed: true,
  }).resolveSecrets();
  assert.deepEqual([...resolved].map(([name, secret]) => [name, secret.reveal()]), [
    ["A", "file-a"],
    ["B", "host-b"],
    ["C", "c"],
  ]);
  assert.equal(JSON.stringify([...resolved.values()]), '["[secret]","[secret]","[secret]"]');
});

Deno.test("RegistryConfiguration: image prefix is the local registry's port", () => {
  const text = configText().replace("docker\n", "docker\n  registry: {port: 5001}\n");
  assert.equal(configurationOf(text).builder.registry.imagePrefix, "localhost:5001");
});

Deno.test("ServerConfiguration: a server's own login is laid over ssh", () => {
  const text = configText().replace(
    "  s2:\n",
    "  s2:\n    user: deploy\n    port: 2222\n    keys: [k2, ~/k3]\n    key_data: [CI]\n",
  ) +
    "ssh: {user: root, key_path: ~/.ssh/a, connect_timeout: 5, proxy: j@b:1}\n";
  const configuration = configurationOf(text, { hostValues: { CI: "pem" } });
  configuration.validate();
  const s1 = configuration.servers.get("s1")!.ssh;
  const s2 = configuration.servers.get("s2")!.ssh;
  assert.deepEqual([s1.user, s1.port, s1.keyPaths], ["root", 22, ["/home/ana/.ssh/a"]]);
  assert.deepEqual([s1.connectTimeoutMs, s1.jump], [5_000, "j@b:1"]);
  assert.deepEqual([s2.user, s2.port], ["deploy", 2222]);
  assert.deepEqual(s2.keyPaths, ["/project/k2", "/home/ana/k3"]);
  assert.equal(s2.keyData[0]!.reveal(), "pem");
});
