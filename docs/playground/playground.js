// One row of three classes: probabilities, loss and gradient, and float32 programs for the same cross-entropy.
"use strict";

const CLASSES = [0, 1, 2];
const sum = (values) => values.reduce((total, value) => total + value, 0);

/** log softmax of a row in float64: all classes but the largest are summed apart, so that log1p keeps a small tail. */
function logSoftmax(z) {
  const top = z.indexOf(Math.max(...z));
  const tail = sum(CLASSES.map((k) => (k === top ? 0 : Math.exp(z[k] - z[top]))));
  return z.map((value) => value - z[top] - Math.log1p(tail));
}

/** Focal loss with smoothed target: loss m^γ n, where m = Σ (1 - t) p is what misses and n = -Σ t log p. */
function lossAndGradient({ z, y, gamma, eps, T }) {
  const logP = logSoftmax(z.map((value) => value / T));
  const p = logP.map(Math.exp);
  const t = CLASSES.map((k) => (k === y ? 1 - eps : 0) + eps / CLASSES.length);
  const miss = sum(CLASSES.map((k) => (1 - t[k]) * p[k]));
  const nll = -sum(CLASSES.map((k) => (t[k] === 0 ? 0 : t[k] * logP[k])));
  const factor = gamma === 0 ? 1 : miss ** gamma;
  const slope = gamma === 0 || miss === 0 ? 0 : gamma * miss ** (gamma - 1) * nll;
  // p - t, which for the label itself is minus the others' sum: 1 - p would lose what is small beside 1.
  const others = (k) => sum(CLASSES.map((j) => (j === k ? 0 : p[j])));
  const dNll = CLASSES.map((k) => (t[k] === 1 ? -others(k) : p[k] - t[k]));
  const dMiss = CLASSES.map((k) => (t[k] === 1 ? -p[k] * miss : p[k] * (1 - t[k] - miss)));
  const gradient = CLASSES.map((k) => (slope * dMiss[k] + factor * dNll[k]) / T);
  return { p, loss: factor * nll, gradient };
}

// Programs in float32: every operation is rounded, as hardware does it.
const f = Math.fround;
const sum32 = (values) => values.reduce((total, value) => f(total + value), f(0));
const exp = (value) => f(Math.exp(value));

const PROGRAMS = {
  "naive: -log(exp(z) / Σ exp(z))": (z, y) => {
    const e = z.map(exp);
    const p = f(e[y] / sum32(e));
    return [f(-f(Math.log(p))), f(p - 1)];
  },
  "log-sum-exp: max + log Σ exp(z - max) - z": (z, y) => {
    const top = Math.max(...z);
    const e = z.map((value) => exp(f(value - top)));
    return [f(f(top + f(Math.log(sum32(e)))) - z[y]), f(f(e[y] / sum32(e)) - 1)];
  },
  "crossent: the tail apart, log1p": (z, y) => {
    const top = z.indexOf(Math.max(...z));
    const e = z.map((value) => exp(f(value - z[top])));
    const tail = sum32(e.filter((_, k) => k !== top));
    const others = sum32(e.filter((_, k) => k !== y));
    return [f(f(z[top] - z[y]) + f(Math.log1p(tail))), f(-others / f(1 + tail))];
  },
};

function show(value) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const small = Math.abs(value) < 1e-3;
  return (small ? value.toExponential(3) : value.toFixed(4)).replace("-", "−").replace("e-", "e−");
}

const form = document.getElementById("controls");

/** What is set: the controls as numbers. */
function settings() {
  const at = (name) => Number(form.elements[name].value);
  return { z: CLASSES.map((k) => at(`z${k}`)), y: at("y"), gamma: at("gamma"), eps: at("eps"), T: at("T") };
}

/** A table row; each number also stands unrounded in data-value. */
function row(name, values) {
  const tr = document.createElement("tr");
  const th = document.createElement("th");
  th.textContent = name;
  tr.append(th);
  for (const value of values) {
    const td = tr.insertCell();
    td.textContent = show(value);
    td.dataset.value = value;
  }
  return tr;
}

function draw() {
  const given = settings();
  for (const label of form.querySelectorAll("label")) {
    const control = label.querySelector("input");
    if (control) label.querySelector("output").textContent = control.value.replace("-", "−");
  }
  const { p, loss, gradient } = lossAndGradient(given);
  const result = document.getElementById("loss");
  result.textContent = show(loss);
  result.dataset.value = loss;
  document.getElementById("classes").replaceChildren(
    ...CLASSES.map((k) => {
      const tr = row(k === given.y ? `${k}, the target` : `${k}`, [p[k], gradient[k]]);
      const bar = document.createElement("span");
      bar.className = "bar";
      bar.style.width = `${100 * p[k]}%`;
      const last = tr.insertCell();
      last.style.width = "30%";
      last.append(bar);
      return tr;
    }),
  );
  const z = given.z.map((value) => f(value / given.T));
  const truth = lossAndGradient({ ...given, z, T: 1, gamma: 0, eps: 0 });
  const programs = Object.entries(PROGRAMS).map(([name, program]) => {
    const [value, slope] = program(z, given.y);
    const tr = row(name, [value, slope]);
    const isOff = (got, exact) => !(Math.abs(got - exact) <= 1e-3 * Math.abs(exact) + 1.5e-45); // float32's least step
    tr.cells[1].classList.toggle("wrong", isOff(value, truth.loss));
    tr.cells[2].classList.toggle("wrong", isOff(slope, truth.gradient[given.y]));
    return tr;
  });
  document.getElementById("programs").replaceChildren(
    ...programs,
    row("exact, by float64", [truth.loss, truth.gradient[given.y]]),
  );
}

/** The address keeps what is set: #z0=2&z1=-1&z2=0&y=0&gamma=0&eps=0&T=1. */
function readAddress() {
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    if (form.elements[name]) form.elements[name].value = value;
  }
  draw();
}

form.addEventListener("input", () => {
  history.replaceState(null, "", `#${new URLSearchParams(new FormData(form))}`);
  draw();
});
addEventListener("hashchange", readAddress);
readAddress();
