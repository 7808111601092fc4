// The session as a CSV file: one row for each image and network.

const FLAGS = ["positive", "referred"];

// A spreadsheet runs what begins so; a quote before it keeps it text.
const field = (value) => {
  const text = /^[=+\-@\t\r]/.test(value) && Number.isNaN(Number(value)) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

export function csv(images) {
  const classes = [...new Set(images.flatMap((one) => one.answers.flatMap((said) => Object.keys(said.probabilities))))];
  const heading = ["image", "network", "predicted", ...classes.map((name) => `probability:${name}`), ...FLAGS, "unusual", "unreadable"];
  const rows = images.flatMap((one) =>
    one.unreadable
      ? [[one.name, "", "", ...classes.map(() => ""), "", "", "", one.unreadable]]
      : one.answers.map((said) => [
          one.name,
          said.network,
          said.label,
          ...classes.map((name) => said.probabilities[name]?.toPrecision(9) ?? ""),
          ...FLAGS.map((name) => (said[name] === null ? "" : Number(said[name]))),
          said.unusual.join(" "),
          "",
        ]),
  );
  return [heading, ...rows].map((row) => row.map(field).join(",") + "\r\n").join("");
}
