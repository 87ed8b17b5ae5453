"use strict";
// Numbers as a person reads them. Every function takes null and says "–".

const NONE = "–";
const isNumber = (x) => typeof x === "number" && Number.isFinite(x);

function count(x, digits = 3) {
  if (!isNumber(x)) return NONE;
  const units = [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
  const [size, unit] = units.find(([s]) => Math.abs(x) >= s * 0.9995) || [1, ""];
  return Number((x / size).toPrecision(digits)).toLocaleString("en") + (unit && "\u00a0" + unit);
}

const whole = (x) => (isNumber(x) ? Math.round(x).toLocaleString("en") : NONE);
const fixed = (digits) => (x) => (isNumber(x) ? x.toFixed(digits).replace("-", "−") : NONE);
const percent = (x) => (isNumber(x) ? (100 * x).toFixed(1) + "\u00a0%" : NONE);
const loss = fixed(3);
const flops = (x) => (isNumber(x) ? (x === 0 ? "0" : count(x) + (x < 1e3 ? "\u00a0" : "") + "FLOP") : NONE);
const bytes = (x) => (isNumber(x) ? count(x) + (x < 1e3 ? "\u00a0" : "") + "B" : NONE);

function tiny(x) {
  if (!isNumber(x)) return NONE;
  if (x === 0) return "0";
  const text = Math.abs(x) >= 1e-2 && Math.abs(x) < 1e3 ? x.toPrecision(3) : x.toExponential(1);
  return text.replace("e-", "e−").replace(/^-/, "−").replace("e+", "e");
}

function duration(s) {
  if (!isNumber(s)) return NONE;
  if (s < 10) return Number(s.toFixed(1)) + " s";
  s = Math.round(s);
  const [d, h, m] = [Math.floor(s / 86400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60];
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${m} min`;
  return m ? `${m} min ${s % 60} s`.replace(" 0 s", "") : `${s} s`;
}

function money(currency) {
  const sign = { USD: "$", EUR: "€", CNY: "¥", GBP: "£" }[currency];
  return (x) => {
    if (!isNumber(x)) return NONE;
    const text = x === 0 ? "0" : Math.abs(x) < 0.1 ? String(Number(x.toPrecision(2))) : x.toFixed(2);
    return sign ? sign + text : `${text} ${currency}`.trim();
  };
}

const clock = (t) => (isNumber(t) ? new Date(t * 1000).toLocaleString("sv").slice(0, 19) : NONE);
