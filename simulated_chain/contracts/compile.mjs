// Compiles TestUsdc.sol into TestUsdc.json, which is checked in. Run it by `make compile-token`.
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import solc from "solc";

const here = new URL(".", import.meta.url);
const source = readFileSync(new URL("TestUsdc.sol", here), "utf8");
const settings = {
  evmVersion: "paris",
  optimizer: { enabled: true, runs: 200 },
  metadata: { bytecodeHash: "none", appendCBOR: false },
  outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.methodIdentifiers"] } },
};
const input = { language: "Solidity", sources: { "TestUsdc.sol": { content: source } }, settings };
const output = JSON.parse(solc.compile(JSON.stringify(input)));
if (output.errors) throw new Error(output.errors.map((error) => error.formattedMessage).join("\n"));
const { abi, evm } = output.contracts["TestUsdc.sol"].TestUsdc;
const compiled = {
  compiler: solc.version(),
  settings,
  source_sha256: createHash("sha256").update(source).digest("hex"),
  selectors: evm.methodIdentifiers,
  abi,
  bytecode: "0x" + evm.bytecode.object,
};
writeFileSync(new URL("TestUsdc.json", here), JSON.stringify(compiled, null, 2) + "\n");
