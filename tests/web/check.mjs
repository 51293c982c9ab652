// The pages in Chromium: pictures at two widths into a directory, and what axe-core finds. Ends with 1 where something is
// wrong that keeps somebody from reading a page. Started by `make web-check`.
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.env.WEB_CHECK_MODULES, "x.js"));
const { chromium } = require("playwright-core");
const axe = require.resolve("axe-core");

const [, , base, out] = process.argv;
mkdirSync(out, { recursive: true });
const problems = [];
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: ["--no-sandbox"],
});

async function look(width, scheme, scripts) {
  const context = await browser.newContext({
    viewport: { width, height: 900 },
    colorScheme: scheme,
    javaScriptEnabled: scripts,
    // The policy of the page forbids what is put into it; the rules are read in spite of that.
    bypassCSP: scripts,
  });
  for (const [name, path] of [["overview", "/"], ["cluster", "/clusters/cache"], ["young", "/clusters/young"]]) {
    const page = await context.newPage();
    const says = (what) => problems.push(`${name} at ${width}, ${scheme}: ${what}`);
    page.on("pageerror", (error) => says(`error: ${error}`));
    page.on("console", (line) => line.type() === "error" && says(`console: ${line.text()}`));
    await page.goto(base + path, { waitUntil: "load" });
    const picture = `${name}-${width}-${scheme}${scripts ? "" : "-no-script"}.png`;
    await page.screenshot({ path: join(out, picture), fullPage: true });
    if (scripts) {
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      if (wide > 0) says(`the page is ${wide} px wider than the window`);
      await page.addScriptTag({ path: axe });
      const found = await page.evaluate(() => globalThis.axe.run());
      for (const v of found.violations) {
        says(`${v.impact}: ${v.id}: ${v.help} (${v.nodes.map((n) => n.target.join(" ")).join("; ")})`);
      }
      console.log(`${picture}: ${found.passes.length} rules of axe-core hold, ${found.violations.length} do not`);
    } else {
      if (!(await page.textContent("main")).includes("As of")) says("nothing is there without scripts");
      console.log(`${picture}: read without scripts`);
    }
    await page.close();
  }
  await context.close();
}

// Under the policy as it is sent: a script that was refused is an error on the console.
async function policy() {
  const page = await browser.newPage();
  page.on("console", (line) => line.type() === "error" && problems.push(`policy: ${line.text()}`));
  page.on("pageerror", (error) => problems.push(`policy: ${error}`));
  await page.goto(base + "/clusters/cache", { waitUntil: "load" });
  // Not by a function: the policy forbids to evaluate one.
  await page.locator("#live", { hasText: /^live$/ }).waitFor({ timeout: 30000 });
  console.log("the page is live under its own policy");
  await page.close();
}

try {
  await look(1280, "light", true);
  await look(1280, "dark", true);
  await look(390, "light", true);
  await look(390, "dark", true);
  await look(390, "light", false);
  await policy();
} finally {
  await browser.close();
}
for (const problem of problems) console.error(problem);
process.exit(problems.length === 0 ? 0 : 1);
