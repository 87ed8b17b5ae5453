// Draw the data that the page carries; a live page then asks for newer data and says when it gets none.

let data = JSON.parse(document.getElementById("data").textContent);

function show() {
  render(data);
  for (const node of document.querySelectorAll("section.card")) node.hidden = !node.hasChildNodes();
}

async function poll(address) {
  let wait = 2000;
  try {
    const answer = await fetch(address, { cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    data = await answer.json();
    show();
    document.body.classList.remove("lost");
  } catch {
    document.body.classList.add("lost");
    wait = 5000;
  }
  setTimeout(poll, wait, address);
}

build();
show();
let resized;
addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(show, 120); });
addEventListener("scroll", tip.hide, { passive: true });
if (document.documentElement.dataset.poll) setTimeout(poll, 2000, document.documentElement.dataset.poll);
