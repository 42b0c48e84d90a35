#include "apps/report_parts.h"

namespace wrn {

// Colours are named once, for light and for dark; each has at least 4.5 to 1 against its page, and
// nothing is told by colour alone: curves differ in their dashes and have tags, cells have numbers.
const char* const kReportStyle = R"(
:root { color-scheme: light dark; --page: #fff; --text: #1c2024; --soft: #57606a; --rule: #d9dee3;
  --panel: #f4f6f8; --wrong: 224 93 20; --most: .62;
  --r0: #0b62aa; --r1: #b8400a; --r2: #0f7350; --r3: #97209d; --r4: #7a5d00; --r5: #0b6a85;
  --r6: #b3261e; --r7: #4b5563; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171a; --text: #e6e9ec; --soft: #a3adb8; --rule: #343b42; --panel: #1d2126;
    --wrong: 255 128 60; --most: .5;
    --r0: #62b3f4; --r1: #ff9a5c; --r2: #4cc99a; --r3: #e592ee; --r4: #d8ba45; --r5: #58cbe2;
    --r6: #ff8f87; --r7: #b9c1ca; } }
body { margin: 0 auto; padding: 1.25rem 1rem 3rem; max-width: 74rem; background: var(--page);
  color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.25rem 0 .5rem; }
p { margin: .4rem 0; }
small, .about, .legend, figcaption small { color: var(--soft); }
h2 + .about { margin-top: -.4rem; }
h1 + .about { margin-bottom: 1.25rem; }
.summary { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.6rem, 1fr)); gap: .75rem;
  margin: 0 0 1.25rem; }
.summary div { background: var(--panel); border-radius: .5rem; padding: .6rem .8rem; }
.summary dt { color: var(--soft); font-size: .85rem; }
.summary dd { margin: 0; font-size: 1.4rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.summary small { display: block; font-size: .8rem; font-weight: 400; }
.remark { border-left: 4px solid var(--r1); padding: .3rem .8rem; background: var(--panel); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr));
  gap: 1.25rem; }
figure { margin: 0; }
figcaption { font-weight: 600; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 12.5px; }
svg text.x, svg text.side { text-anchor: middle; }
svg text.y, svg text.mark { text-anchor: end; }
svg text.mark { font-size: 11px; paint-order: stroke; stroke: var(--page); stroke-width: 3px; }
svg text.tag { font-weight: 700; fill: currentColor; paint-order: stroke; stroke: var(--page);
  stroke-width: 3px; }
svg line.grid { stroke: var(--rule); }
svg line.axis, svg line.mark { stroke: var(--soft); }
svg line.mark { stroke-dasharray: 1 3; stroke-width: 1.5; }
polyline, path.key { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
circle, path.over { fill: currentColor; }
.r0 { color: var(--r0); } .r1 { color: var(--r1); } .r2 { color: var(--r2); }
.r3 { color: var(--r3); } .r4 { color: var(--r4); } .r5 { color: var(--r5); }
.r6 { color: var(--r6); } .r7 { color: var(--r7); }
.r1 polyline, .r1 path.key { stroke-dasharray: 7 3; }
.r2 polyline, .r2 path.key { stroke-dasharray: 2 3; }
.r3 polyline, .r3 path.key { stroke-dasharray: 9 3 2 3; }
.r5 polyline, .r5 path.key { stroke-dasharray: 4 2; }
.r6 polyline, .r6 path.key { stroke-dasharray: 12 4; }
.r7 polyline, .r7 path.key { stroke-dasharray: 6 2 1 2 1 2; }
.legend { margin: .25rem 0 0; font-size: .9rem; }
.legend span { display: inline-block; margin-right: 1rem; overflow-wrap: anywhere; }
svg.key { display: inline-block; width: 30px; height: 10px; margin-right: .4em; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr));
  gap: 0 2rem; align-items: start; }
.beside > * { min-width: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--rule); text-align: right;
  white-space: nowrap; }
.beside td, .beside th { padding-left: .3rem; padding-right: .5rem; }
thead th { color: var(--soft); font-weight: 600; white-space: normal; vertical-align: bottom; }
tbody th { font-weight: 400; text-align: left; }
tr.best td { font-weight: 700; background: var(--panel); }
.runs td:first-child, .runs th:first-child, .differences td, .differences th { text-align: left; }
.runs .name { font-weight: 600; max-width: 16rem; white-space: normal; overflow-wrap: anywhere; }
.differences td { white-space: normal; overflow-wrap: anywhere; min-width: 5rem; }
.configuration { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr));
  gap: 0 2rem; align-items: start; }
.config { width: 100%; }
.config th, .config td { text-align: left; vertical-align: top; white-space: normal;
  overflow-wrap: anywhere; padding-left: 0; }
.config th { color: var(--soft); width: 45%; }
.confusion { font-size: .9rem; }
@media (max-width: 40rem) { .confusion { font-size: .78rem; } }
.confusion th, .confusion td { border: 0; padding: .25rem .3rem; }
.confusion td { min-width: 2em; text-align: center; border-radius: .25rem; border: 1px solid
  var(--page); background: rgb(var(--wrong) / calc(var(--a, 0) * var(--most))); }
.confusion td.right { font-weight: 700; background: var(--panel); border-color: var(--rule); }
.confusion td.none { color: var(--soft); }
.confusion td.sum { padding-left: .7rem; text-align: right; }
.confusion thead th span { writing-mode: vertical-rl; transform: rotate(180deg); }
.confusion thead th { text-align: center; }
.confusion tbody th { position: sticky; left: 0; background: var(--page); }
.confusion thead th:first-child, .confusion tbody th { text-align: left; }
.pairs { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr));
  gap: 0 2rem; align-items: start; }
.pairs div:first-child { grid-column: span 1; }
.pairs td, .pairs th { padding-left: 0; white-space: normal; }
.pairs td:first-child, .pairs th:first-child, .pairs td:nth-child(2):nth-last-child(3),
.pairs th:nth-child(2):nth-last-child(3) { text-align: left; }
.mistakes { display: grid; grid-template-columns: repeat(auto-fill, minmax(6rem, 1fr)); gap: 1rem
  .75rem; }
@media (min-width: 60rem) { .mistakes { grid-template-columns: repeat(8, 1fr); } }
.mistakes img { display: block; width: 100%; max-width: 8rem; height: auto; aspect-ratio: 1;
  border-radius: .4rem; image-rendering: pixelated; }
.mistakes figcaption { font-size: .9rem; line-height: 1.3; margin-top: .3rem; }
.mistakes small { display: block; font-weight: 400; }
.network { max-width: 30rem; }
.network rect.stage { fill: var(--panel); stroke: var(--rule); }
.network rect.conv { fill: var(--page); stroke: var(--r0); }
.network text { fill: var(--text); }
.network text.name { font-weight: 600; }
.network text.y, .network text.side { fill: var(--soft); }
.network text.side { font-size: 11px; }
.network path { fill: none; stroke: var(--soft); stroke-width: 1.5; }
.network path.identity { stroke-dasharray: 4 3; }
summary { cursor: pointer; margin: .8rem 0; }
.run > summary { font-size: 1.15rem; font-weight: 600; overflow-wrap: anywhere; }
)";

}  // namespace wrn
