// Runs once when the result's place on the page is there: `element` is that place, `watch` tells of new results.
let timer = null;
const stop = () => { clearInterval(timer); timer = null; const play = element.querySelector(".play"); if (play) play.textContent = "▶ Play"; };
const show = (number) => {
  for (const part of element.querySelectorAll(".stage [data-frame], .labels [data-frame]"))
    part.hidden = part.dataset.frame !== String(number);
  for (const part of element.querySelectorAll(".strip [data-frame], .steps [data-frame]"))
    part.classList.toggle("current", part.dataset.frame === String(number));
  element.querySelector("input[type=range]").value = number;
};
const start = (from) => {
  const player = element.querySelector(".player");
  if (!player) return;
  const last = Number(player.dataset.last);
  stop();
  let number = from < last ? from : 0;
  show(number);
  player.querySelector(".play").textContent = "❚❚ Pause";
  timer = setInterval(() => { number += 1; show(number); if (number >= last) stop(); }, Math.min(400, Math.max(70, 3000 / (last + 1))));
};
element.addEventListener("input", (event) => { if (event.target.matches("input[type=range]")) { stop(); show(event.target.value); } });
element.addEventListener("click", (event) => {
  if (event.target.closest(".play")) { if (timer) stop(); else start(Number(element.querySelector("input[type=range]").value)); return; }
  const part = event.target.closest(".strip [data-frame], .steps [data-frame]");
  if (part) { stop(); show(part.dataset.frame); }
});
watch("value", () => {  // what was drawn before is reused: everything is set anew
  const player = element.querySelector(".player");
  stop();
  if (!player) return;
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) show(player.dataset.last); else start(0);
});
