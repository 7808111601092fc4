// The session as a CSV file: one row for each image and network.

const FLAGS = ["positive", "referred"];

// A spreadsheet runs a field that begins with one of these as a formula; a quote before it keeps it text.
const quoteField = (value) => {
  const text = /^[=+\-@\t\r]/.test(value) && Number.isNaN(Number(value)) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

export function formatCsv(images) {
  const classes = [...new Set(images.flatMap((image) => image.predictions.flatMap((prediction) => Object.keys(prediction.probabilities))))];
  const heading = ["image", "network", "predicted", ...classes.map((name) => `probability:${name}`), ...FLAGS, "unusual", "unreadable"];
  const rows = images.flatMap((image) =>
    image.unreadable
      ? [[image.name, "", "", ...classes.map(() => ""), "", "", "", image.unreadable]]
      : image.predictions.map((prediction) => [
          image.name,
          prediction.network,
          prediction.label,
          ...classes.map((name) => prediction.probabilities[name]?.toPrecision(9) ?? ""),
          ...FLAGS.map((name) => (prediction[name] === null ? "" : Number(prediction[name]))),
          prediction.unusual.join(" "),
          "",
        ]),
  );
  return [heading, ...rows].map((row) => row.map(quoteField).join(",") + "\r\n").join("");
}
