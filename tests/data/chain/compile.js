// node compile.js: writes doubles.json anew. Needs npm's solc 0.8.30.
const fs = require("fs");
const path = require("path");
const solc = require("solc");

const content = fs.readFileSync(path.join(__dirname, "doubles.sol"), "utf8");
const settings = {
  evmVersion: "paris",
  optimizer: { enabled: true, runs: 200 },
  metadata: { bytecodeHash: "none", appendCBOR: false },
  outputSelection: { "*": { "*": ["evm.deployedBytecode.object"] } },
};
const input = { language: "Solidity", sources: { "doubles.sol": { content } }, settings };
const output = JSON.parse(solc.compile(JSON.stringify(input)));
const errors = (output.errors || []).filter((error) => error.severity === "error");
for (const error of errors) console.error(error.formattedMessage);
if (errors.length) process.exit(1);
const found = {};
for (const [name, contract] of Object.entries(output.contracts["doubles.sol"])) {
  const code = contract.evm.deployedBytecode.object;
  if (code && name !== "Calls") found[name] = "0x" + code;
}
fs.writeFileSync(path.join(__dirname, "doubles.json"), JSON.stringify(found, null, 1) + "\n");
