/** The images that the hub serves in place of Docker Hub, and the registry program that serves. */
import { runCommand } from "./command.ts";
import { writeImage } from "./oci.ts";
import type { BuildContext, Thing } from "./thing.ts";

/** The proxy's version: module version, image tag. */
export const KAMAL_PROXY_VERSION = "v0.9.2";

const KAMAL_PROXY_MODULE = "github.com/basecamp/kamal-proxy";

async function buildKamalProxy({ stage, say }: BuildContext): Promise<void> {
  const source = `${stage}/source`;
  await Deno.mkdir(source);
  // The module can be had by its exact version only, which `go install` does not ask for.
  await Deno.writeTextFile(
    `${source}/go.mod`,
    `module lab\nrequire ${KAMAL_PROXY_MODULE} ${KAMAL_PROXY_VERSION}\n`,
  );
  const options = {
    cwd: source,
    env: { CGO_ENABLED: "0", GOFLAGS: "-mod=mod -buildvcs=false" },
    timeoutMs: 20 * 60_000,
  };
  say("compiling");
  await runCommand(
    [
      ...["nice", "go", "build", "-trimpath", "-ldflags=-s -w", "-o", `${stage}/kamal-proxy`],
      `${KAMAL_PROXY_MODULE}/cmd/kamal-proxy`,
    ],
    options,
  );
  await Deno.remove(source, { recursive: true });
}

/** Users of both images; the proxy's is the one its own image has. */
const PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP = "root:x:0:\nnogroup:x:65534:\n";
/** Numeric user of the proxy in its image. */
const PROXY_USER = 1000;
const PATH_VARIABLE = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

async function unpack(
  { slot }: Pick<BuildContext, "slot">,
  options: { readonly packageName: string; readonly target: string },
): Promise<void> {
  const repo = `${slot("packages")}/repo`;
  for await (const entry of Deno.readDir(repo)) {
    if (!entry.name.startsWith(`${options.packageName}_`)) continue;
    await runCommand(["dpkg-deb", "-x", `${repo}/${entry.name}`, options.target]);
    return;
  }
  throw new Error(`the package repository has no ${options.packageName}`);
}

async function writeBusyboxRoot(folder: string, busybox: string): Promise<void> {
  for (const path of ["bin", "etc", "root", "tmp", "usr/local/bin", "var"]) {
    await Deno.mkdir(`${folder}/${path}`, { recursive: true });
  }
  await Deno.chmod(`${folder}/tmp`, 0o1777);
  await Deno.copyFile(busybox, `${folder}/bin/busybox`);
  await Deno.chmod(`${folder}/bin/busybox`, 0o755);
  const applets = await runCommand([busybox, "--list"]);
  for (const applet of applets.split("\n").filter((name) => name && name !== "busybox")) {
    await Deno.symlink("busybox", `${folder}/bin/${applet}`);
  }
  await Deno.writeTextFile(`${folder}/etc/passwd`, PASSWD);
  await Deno.writeTextFile(`${folder}/etc/group`, GROUP);
}

async function buildImages(context: BuildContext): Promise<void> {
  const { stage, slot } = context;
  const storage = `${stage}/registry`;
  await unpack(context, { packageName: "busybox-static", target: `${stage}/deb` });
  const busybox = `${stage}/deb/bin/busybox`;

  const base = `${stage}/busybox`;
  await writeBusyboxRoot(base, busybox);
  await writeImage(storage, {
    repository: "library/busybox",
    tags: ["1", "1.35", "latest"],
    folder: base,
    runtime: { cmd: ["sh"], env: [PATH_VARIABLE] },
  });

  const proxy = `${stage}/proxy`;
  await writeBusyboxRoot(proxy, busybox);
  await Deno.copyFile(`${slot("kamal-proxy")}/kamal-proxy`, `${proxy}/usr/local/bin/kamal-proxy`);
  await Deno.chmod(`${proxy}/usr/local/bin/kamal-proxy`, 0o755);
  const home = "/home/kamal-proxy";
  const state = `${proxy}${home}/.config/kamal-proxy`;
  await Deno.mkdir(state, { recursive: true });
  await runCommand(["chown", "-R", `${PROXY_USER}:${PROXY_USER}`, proxy + home]);
  const user = `kamal-proxy:x:${PROXY_USER}:`;
  await Deno.writeTextFile(
    `${proxy}/etc/passwd`,
    `${PASSWD}${user}${PROXY_USER}::${home}:/bin/sh\n`,
  );
  await Deno.writeTextFile(`${proxy}/etc/group`, `${GROUP}${user}\n`);
  await writeImage(storage, {
    repository: "basecamp/kamal-proxy",
    tags: [KAMAL_PROXY_VERSION, "latest"],
    folder: proxy,
    runtime: {
      cmd: ["kamal-proxy", "run"],
      env: [PATH_VARIABLE],
      user: "kamal-proxy",
      exposedPorts: ["80/tcp", "443/tcp"],
    },
  });
  for (const path of ["deb", "busybox", "proxy"]) {
    await Deno.remove(`${stage}/${path}`, { recursive: true });
  }
}

/** The proxy's program, `kamal-proxy` in its slot. */
export const KAMAL_PROXY: Thing = {
  name: "kamal-proxy",
  title: `kamal-proxy ${KAMAL_PROXY_VERSION}`,
  recipe: JSON.stringify([1, KAMAL_PROXY_VERSION]),
  needs: [],
  build: buildKamalProxy,
};

/** The images of the hub, `registry` in its slot: busybox and kamal-proxy. */
export const IMAGES: Thing = {
  name: "images",
  title: "images busybox, kamal-proxy",
  recipe: JSON.stringify([1, PASSWD, PROXY_USER]),
  needs: ["kamal-proxy", "packages"],
  build: buildImages,
};

/** The registry program, `usr/bin/docker-registry` in its slot. */
export const HUB: Thing = {
  name: "hub",
  title: "image registry",
  recipe: "1",
  needs: ["packages"],
  build: (context) =>
    unpack(context, { packageName: "docker-registry", target: `${context.stage}` }),
};
