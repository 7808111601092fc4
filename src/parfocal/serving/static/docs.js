// The description of the API, drawn from the OpenAPI document that the server itself makes.

import { answerOf } from "./server.js";
import { at, make } from "./view.js";

const described = await answerOf("openapi.json").catch((error) => {
  at("about").textContent = error.message;
  throw error;
});

// Whether programs need a token shows where the page's cookie is left out.
const guarded = (await fetch("openapi.json", { credentials: "omit" })).headers.get("www-authenticate") === "Bearer";

const resolved = (schema) => (schema?.$ref ? described.components.schemas[schema.$ref.split("/").pop()] : schema);

function kind(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(kind).join(" or ");
  if (schema.enum) return schema.enum.join(" or ");
  if (schema.type === "array") return `list of ${kind(schema.items)}`;
  if (schema.additionalProperties) return `${kind(schema.additionalProperties)} by name`;
  return schema.format ?? schema.type ?? "anything";
}

function table(caption, headings, rows) {
  const [frame, whole, head, body] = [make("div", "", "scroll"), make("table"), make("thead"), make("tbody")];
  const line = make("tr");
  line.append(...headings.map((text) => Object.assign(make("th", text), { scope: "col" })));
  head.append(line);
  for (const row of rows) {
    const told = make("tr");
    told.append(Object.assign(make("th", row[0]), { scope: "row" }), ...row.slice(1).map((text) => make("td", text)));
    body.append(told);
  }
  whole.append(make("caption", caption), head, body);
  frame.append(whole);
  return rows.length ? [frame] : [];
}

function example(method, path, told) {
  const parts = ["curl"];
  if (guarded && told.responses["401"]) parts.push('-H "Authorization: Bearer $PARFOCAL_TOKEN"');
  if (path === "/v1/grade") parts.push("-F image=@one.jpg -F image=@two.png");
  else if (told.requestBody) parts.push("--data-binary @one.jpg");
  else if (method === "post") parts.push("-X POST");
  if (told.responses["200"]?.content?.["image/png"]) parts.push("-o map.png");
  // Not the whole as a URL: the braces of a name to fill in would become %7B and %7D.
  return [...parts, `${new URL(".", document.baseURI)}${path.slice(1)}`].join(" ");
}

function address(path, method, told) {
  const section = make("section");
  const schema = told.responses["200"]?.content?.["application/json"]?.schema;
  const fields = resolved(schema?.items ?? schema)?.properties ?? {};
  section.append(
    make("h2", `${method.toUpperCase()} ${path}`),
    make("p", told.description ?? told.summary),
    make("pre", example(method, path, told)),
    ...table("Parameters", ["Name", "Kind", "Meaning"], (told.parameters ?? []).map((one) => [one.name, kind(one.schema), one.description ?? ""])),
    ...table("Body", ["Content type", "Kind"], Object.entries(told.requestBody?.content ?? {}).map(([type, one]) => [type, kind(one.schema)])),
    ...table(`Answer: ${kind(schema)}`, ["Name", "Kind", "Meaning"], Object.entries(fields).map(([name, one]) => [name, kind(one), one.description ?? ""])),
    ...table("Statuses", ["Status", "When"], Object.entries(told.responses).map(([status, one]) => [status, one.description])),
  );
  return section;
}

function shape(name, schema) {
  const section = make("section");
  const rows = Object.entries(schema.properties ?? {}).map(([field, one]) => [field, kind(one), one.description ?? ""]);
  section.append(make("h2", name), make("p", schema.description ?? ""), ...table("Fields", ["Name", "Kind", "Meaning"], rows));
  return section;
}

at("about").textContent = `${described.info.description} Version ${described.info.version}.`;
at("addresses").replaceChildren(
  ...Object.entries(described.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, told]) => address(path, method, told))),
  ...Object.entries(described.components.schemas).map(([name, schema]) => shape(name, schema)),
);
document.body.dataset.ready = "yes";
