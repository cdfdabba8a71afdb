// What .ci/lint-events runs, at the top of the repository.
const fs = require('fs');
const path = require('path');
const { Parser, fromFile } = require('@asyncapi/parser');
const Ajv = require('ajv/dist/2020');

let findings = 0;
function finding(text) {
  findings++;
  console.log(text);
}

const ajv = new Ajv({ strict: true, allErrors: true });
require('ajv-formats')(ajv);
ajv.addKeyword('x-parser-schema-id'); // which the parser of AsyncAPI puts into each schema

function validates(validate, value, what) {
  if (!validate(value)) finding(`${what}: ${ajv.errorsText(validate.errors)}`);
}

// The schemas, by type: compiling one checks it against the meta-schema, and in strict mode for keywords that mean nothing.
const schemas = {};
for (const file of fs.readdirSync('docs/schemas')) {
  try {
    schemas[path.basename(file, '.json')] = ajv.compile(JSON.parse(fs.readFileSync(`docs/schemas/${file}`, 'utf8')));
  } catch (error) {
    finding(`docs/schemas/${file}: ${error.message}`);
  }
}

const goldenEvents = 'internal/events/testdata/events';
for (const file of fs.readdirSync(goldenEvents)) {
  const event = JSON.parse(fs.readFileSync(`${goldenEvents}/${file}`, 'utf8'));
  validates(schemas.event, event, file);
  validates(schemas[event.type], event.data, file);
}

(async () => {
  const { document, diagnostics } = await fromFile(new Parser(), 'docs/asyncapi.yaml').parse();
  for (const d of diagnostics) finding(`docs/asyncapi.yaml:${d.range.start.line + 1}: ${d.code}: ${d.message}`);
  const messages = document ? document.components().messages().all() : [];
  let examples = 0;
  for (const message of messages) {
    const payload = ajv.compile(message.payload().json());
    for (const example of message.examples()) {
      examples++;
      validates(payload, example.payload(), `example ${example.name()} of ${message.id()}`);
      if (message.hasHeaders()) validates(schemas.headers, example.headers(), `headers of example ${example.name()}`);
    }
  }
  console.log(`docs/asyncapi.yaml: ${messages.length} messages, ${examples} examples, ${Object.keys(schemas).length} schemas, ${findings} findings`);
  process.exit(findings || !examples ? 1 : 0);
})();
