// The API documentation, built from the server's own OpenAPI document.

import { requestJson } from "./server.js";
import { byId, createElement } from "./view.js";

const openapi = await requestJson("openapi.json").catch((error) => {
  byId("description").textContent = error.message;
  throw error;
});

// A request without the page's cookie shows whether programs need a token.
const needsToken = (await fetch("openapi.json", { credentials: "omit" })).headers.get("www-authenticate") === "Bearer";

const resolveSchema = (schema) => (schema?.$ref ? openapi.components.schemas[schema.$ref.split("/").pop()] : schema);

function formatType(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(formatType).join(" or ");
  if (schema.enum) return schema.enum.join(" or ");
  if (schema.type === "array") return `list of ${formatType(schema.items)}`;
  if (schema.additionalProperties) return `${formatType(schema.additionalProperties)} by name`;
  return schema.format ?? schema.type ?? "any type";
}

function createTable(caption, headings, rows) {
  const [frame, table, head, body] = [createElement("div", "", "scroll"), createElement("table"), createElement("thead"), createElement("tbody")];
  const headingRow = createElement("tr");
  headingRow.append(...headings.map((text) => Object.assign(createElement("th", text), { scope: "col" })));
  head.append(headingRow);
  for (const [heading, ...cells] of rows) {
    const row = createElement("tr");
    row.append(Object.assign(createElement("th", heading), { scope: "row" }), ...cells.map((text) => createElement("td", text)));
    body.append(row);
  }
  table.append(createElement("caption", caption), head, body);
  frame.append(table);
  return rows.length ? [frame] : [];
}

function formatCommand(method, path, operation) {
  const words = ["curl"];
  if (needsToken && operation.responses["401"]) words.push('-H "Authorization: Bearer $PARFOCAL_TOKEN"');
  if (path === "/v1/predict") words.push("-F image=@one.jpg -F image=@two.png");
  else if (operation.requestBody) words.push("--data-binary @one.jpg");
  else if (method === "post") words.push("-X POST");
  if (operation.responses["200"]?.content?.["image/png"]) words.push("-o map.png");
  // A URL object would turn the braces of a path parameter into %7B and %7D.
  return [...words, `${new URL(".", document.baseURI)}${path.slice(1)}`].join(" ");
}

function createOperation(path, method, operation) {
  const section = createElement("section");
  const schema = operation.responses["200"]?.content?.["application/json"]?.schema;
  const fields = resolveSchema(schema?.items ?? schema)?.properties ?? {};
  section.append(
    createElement("h2", `${method.toUpperCase()} ${path}`),
    createElement("p", operation.description ?? operation.summary),
    createElement("pre", formatCommand(method, path, operation)),
    ...createTable("Parameters", ["Name", "Type", "Description"], (operation.parameters ?? []).map((parameter) => [parameter.name, formatType(parameter.schema), parameter.description ?? ""])),
    ...createTable("Request body", ["Content type", "Type"], Object.entries(operation.requestBody?.content ?? {}).map(([type, content]) => [type, formatType(content.schema)])),
    ...createTable(`Response: ${formatType(schema)}`, ["Name", "Type", "Description"], describeFields(fields)),
    ...createTable("Status codes", ["Status", "Description"], Object.entries(operation.responses).map(([status, response]) => [status, response.description])),
  );
  return section;
}

function createSchema(name, schema) {
  const section = createElement("section");
  const rows = describeFields(schema.properties ?? {});
  section.append(createElement("h2", name), createElement("p", schema.description ?? ""), ...createTable("Fields", ["Name", "Type", "Description"], rows));
  return section;
}

const describeFields = (fields) => Object.entries(fields).map(([name, schema]) => [name, formatType(schema), schema.description ?? ""]);

byId("description").textContent = `${openapi.info.description} Version ${openapi.info.version}.`;
byId("operations").replaceChildren(
  ...Object.entries(openapi.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => createOperation(path, method, operation))),
  ...Object.entries(openapi.components.schemas).map(([name, schema]) => createSchema(name, schema)),
);
document.body.dataset.ready = "yes";
