// Opens a site, and the pages of a comparison, in a real Chromium without network, uses it as people do, and prints what it found as JSON.
//   node site.cjs CHROMIUM SITE HOSTILE.html DIFF SCREENSHOTS
"use strict";

const fs = require("fs");
const path = require("path");
const { pathToFileURL } = require("url");
const axe = require("axe-core");
const { chromium } = require("playwright-core");

const [program, site, hostile, diff, screenshots] = process.argv.slice(2);
const SIZES = [[1280, 900], [390, 844]];
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"];

async function main() {
  const browser = await chromium.launch({ executablePath: program, args: FLAGS });
  const found = { errors: [], requests: [], unreachable: [], wide: [], pages: 0, used: {} };
  const first = (folder) => `${folder}/${fs.readdirSync(path.join(site, folder)).sort().find(
    (name) => folder !== "images" || fs.readFileSync(path.join(site, folder, name), "utf8").includes("<rect class=\"box"))}`;
  const pages = [...fs.readdirSync(site).filter((name) => name.endsWith(".html")), first("tags"), first("images")]
    .map((name) => [name, path.join(site, name)]);
  const cells = path.join(diff, "cells");
  pages.push(["diff.html", path.join(diff, "index.html")], ["cell.html", path.join(cells, fs.readdirSync(cells).sort()[0])]);
  for (const [width, height] of SIZES) {
    for (const colorScheme of ["light", "dark"]) {
      const context = await browser.newContext({ viewport: { width, height }, colorScheme, offline: true });
      const page = await context.newPage();
      watch(page, found);
      for (const [name, at] of pages) {
        await page.goto(pathToFileURL(at).href);
        await judge(page, `${name} ${width} ${colorScheme}`, found);
        const file = `${name.replace(/[^a-z0-9]+/g, "-")}-${width}-${colorScheme}.png`;
        await page.screenshot({ path: path.join(screenshots, file), fullPage: width > 400 });
        found.pages += 1;
      }
      await context.close();
    }
  }
  const context = await browser.newContext({ offline: true, viewport: { width: 1280, height: 900 } });
  const page = await context.newPage();
  watch(page, found);
  found.used = { ...await useTags(page), ...await useImage(page, first("images")), ...await useTheme(page), ...await useDiff(page) };
  page.on("dialog", (dialog) => { found.errors.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  await page.goto(pathToFileURL(hostile).href);
  await page.waitForTimeout(200);
  found.title = await page.title();
  found.hostile = await page.locator("main").innerText();
  await judge(page, "hostile", found);
  await browser.close();
  console.log(JSON.stringify(found));
}

function watch(page, found) {
  page.on("console", (line) => { if (line.type() === "error") found.errors.push(`${page.url()}: ${line.text()}`); });
  page.on("pageerror", (error) => found.errors.push(`${page.url()}: ${error}`));
  page.on("requestfailed", (request) => found.errors.push(`not loaded: ${request.url()}`));
  page.on("request", (request) => {
    if (!/^(file|data):/.test(request.url())) found.requests.push(request.url());
  });
}

async function judge(page, name, found) {
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() => window.axe.run({ preload: false }));
  for (const one of violations) {
    if (["serious", "critical"].includes(one.impact)) {
      found.unreachable.push(`${name}: ${one.id}: ${one.nodes[0].html}`);
    }
  }
  const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (over > 0) found.wide.push(`${name}: ${over} pixels`);
}

async function useTags(page) {
  await page.goto(pathToFileURL(path.join(site, "tags.html")).href);
  const shown = () => page.$$eval("#tags tbody tr", (rows) => rows.filter((row) => !row.hidden).map((row) => row.cells[0].innerText.trim()));
  const numbers = (place) => page.$$eval("#tags tbody tr", (rows, at) => rows.map((row) => Number(row.cells[at].innerText.replace(/,/g, ""))), place);
  const all = await shown();
  await page.fill("#search", all[0].slice(0, 3));
  const searched = await shown();
  await page.fill("#search", "");
  const kinds = await page.$$eval("#kind option", (options) => options.map((one) => one.value));
  const filtered = {};
  for (const kind of kinds) {
    await page.selectOption("#kind", kind);
    filtered[kind] = await page.$$eval("#tags tbody tr", (rows) => rows.filter((row) => !row.hidden).map((row) => row.cells[1].innerText.trim()));
  }
  await page.selectOption("#kind", "");
  await page.click("th:nth-child(4) button");
  const falling = await numbers(3);
  await page.click("th:nth-child(4) button");
  const rising = await numbers(3);
  await page.click("th:nth-child(1) button");
  const named = await shown();
  await page.goto(`${pathToFileURL(path.join(site, "tags.html")).href}?rule=uncertain/no_box`);
  const linked = await shown();
  return { all, searched, filtered, falling, rising, named, linked };
}

async function useImage(page, name) {
  await page.goto(pathToFileURL(path.join(site, name)).href);
  const tag = await page.$eval("svg rect[data-tag]", (box) => box.dataset.tag);
  const picked = () => page.$$eval(".picked", (all) => all.map((one) => [one.tagName.toLowerCase(), one.dataset.tag]));
  await page.hover(`#evidence tr[data-tag="${tag}"] td:nth-child(2)`);
  const hovered = await picked();
  await page.mouse.move(0, 0);
  const left = await picked();
  await page.focus(`#evidence tr[data-tag="${tag}"]`);
  const focused = await picked();
  await page.keyboard.press("Escape");
  return { tag, hovered, left, focused };
}

async function useDiff(page) {
  await page.goto(pathToFileURL(path.join(diff, "index.html")).href);
  const counts = () => page.$$eval("#changes tbody tr", (rows) => rows.map((row) => Number(row.cells[2].innerText.replace(/,/g, ""))));
  const largest = await counts();
  await page.click("#changes th:nth-child(3) button");
  await page.click("#changes th:nth-child(3) button");
  const smallest = await counts();
  const link = page.locator("#matrix td a").first();
  const count = await link.innerText();
  await link.click();
  const lead = await page.locator(".lead").innerText();
  const drawn = await page.locator(".card .frame img, .card .frame image").count();
  return { largest, smallest, count, lead, drawn };
}

async function useTheme(page) {
  await page.goto(pathToFileURL(path.join(site, "index.html")).href);
  const paper = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  const before = await paper();
  await page.click("#theme");
  const after = await paper();
  await page.reload();
  return { before, after, kept: await paper() };
}

main().catch((error) => { console.error(error); process.exit(1); });
