import assert from "node:assert/strict";
import {
  debianSources,
  parseAptSources,
  parseDebFileName,
  renderPackageIndex,
  renderSourcesList,
  repositoryFileName,
} from "../apt.ts";

const DEB822 = `Types: deb
# http://old.example/archive
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian.gpg

Types: deb deb-src
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main
`;

Deno.test("parseAptSources(): reads both formats of sources files", () => {
  const [first, second, ...none] = parseAptSources(DEB822);
  assert.deepEqual(first, {
    uri: "http://mirror.example/debian",
    suites: ["bookworm", "bookworm-updates"],
    components: ["main", "contrib"],
    signedBy: "/usr/share/keyrings/debian.gpg",
  });
  assert.equal(second?.uri, "http://mirror.example/debian-security");
  assert.deepEqual(none, []);
  const lines =
    "# note\ndeb [arch=amd64 signed-by=/k.gpg] http://m.example/debian/ bookworm main\n";
  assert.deepEqual(parseAptSources(lines), [{
    uri: "http://m.example/debian/",
    suites: ["bookworm"],
    components: ["main"],
    signedBy: "/k.gpg",
  }]);
});

Deno.test("debianSources(): leaves out other vendors and other releases", () => {
  const others = parseAptSources(
    "deb http://vendor.example/node_20.x nodistro main\ndeb http://m.example/debian trixie main\n",
  );
  const kept = debianSources([...parseAptSources(DEB822), ...others], "bookworm");
  assert.deepEqual(kept.map((source) => source.suites.join()), [
    "bookworm,bookworm-updates",
    "bookworm-security",
  ]);
  assert.match(renderSourcesList(kept), /^deb \[signed-by=\S+\] \S+ bookworm main$/m);
});

Deno.test("parseDebFileName(): undoes apt's way of writing an epoch", () => {
  assert.deepEqual(parseDebFileName("git_1%3a2.39.5-0+deb12u2_amd64.deb"), {
    name: "git",
    version: "1:2.39.5-0+deb12u2",
  });
  assert.equal(parseDebFileName("lock"), undefined);
  assert.equal(repositoryFileName("git_1%3a2.39_amd64.deb"), "git_2.39_amd64.deb");
});

Deno.test("renderPackageIndex(): takes the stanza of the downloaded version", () => {
  const stanzas = "Package: a\nVersion: 1:2\nFilename: pool/a.deb\nSHA256: x\n\n" +
    "Package: a\nVersion: 1:1\nFilename: pool/old.deb\nSHA256: y\n";
  const index = renderPackageIndex(stanzas, ["a_1%3a2_all.deb"]);
  assert.match(index, /^Filename: \.\/a_2_all\.deb$/m);
  assert.match(index, /^SHA256: x$/m);
  assert.throws(() => renderPackageIndex(stanzas, ["b_1_all.deb"]), /apt knows nothing about/);
});
