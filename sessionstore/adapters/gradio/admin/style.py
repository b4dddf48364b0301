"""The dashboard's style sheet. All of it is below ``.ssd``, so an app's own stays as it is."""

from __future__ import annotations

from typing import Final

# Emphasis is drawn by a stroke: the semi-bold faces that Gradio 6 ships have a few letters only,
# and a browser takes the others from another font.
_BELOW: Final = """
.ssd { container-type: inline-size; color: var(--body-text-color); font-size: 14px;
  line-height: 1.45; }
.ssd * { box-sizing: border-box; }
.ssd h1 { font-size: 23px; margin: 0; letter-spacing: -.01em; }
.ssd h2 { font-size: 18px; margin: 0; letter-spacing: -.01em; }
.ssd h3 { font-size: 14.5px; margin: 0 0 10px; }
.ssd h1, .ssd h2, .ssd h3, .ssd b, .ssd strong, .ssd thead th, .ssd tbody th code {
  font-weight: 500; -webkit-text-stroke: .4px currentColor; }
.ssd p, .ssd ul { margin: 0; }
.ssd .dim, .ssd .badge, .ssd thead th, .ssd tbody td::before {
  color: color-mix(in srgb, var(--body-text-color) 66%, transparent); }
.ssd .dim { font-size: 12.5px; }
.ssd .dim *, .ssd .badge *, .ssd thead th * { color: inherit; }
.ssd code { font-family: var(--font-mono); font-size: 12.5px; background: none; border: 0;
  padding: 0; color: inherit; }

.ssd .note { border: 1px solid var(--border-color-primary); border-radius: 10px; padding: 12px 14px;
  background: var(--background-fill-secondary); overflow-wrap: anywhere; }
.ssd .note + .cards { margin-top: 12px; }
.ssd .note.warn { border-color: #d9a441; background: color-mix(in srgb, #d9a441 12%, transparent); }
.ssd .note.bad { border-color: #d9534f; background: color-mix(in srgb, #d9534f 12%, transparent); }
.ssd .note code { background: color-mix(in srgb, currentColor 9%, transparent); padding: 1px 4px;
  border-radius: 4px; }

.ssd .cards { display: grid; grid-template-columns: repeat(4, 1fr); gap: 12px; }
.ssd .panels { display: grid; grid-template-columns: 3fr 2fr; gap: 12px; margin-top: 12px; }
.ssd .card, .ssd .panel { border: 1px solid var(--border-color-primary); border-radius: 10px;
  background: var(--block-background-fill); padding: 14px 16px; min-width: 0; }
.ssd .card { display: flex; flex-direction: column; gap: 2px; }
.ssd .card strong { font-size: 25px; line-height: 1.25;
  letter-spacing: -.01em; color: var(--body-text-color); font-variant-numeric: tabular-nums; }

.ssd .bar { display: block; height: 4px; border-radius: 2px; margin-top: 5px; overflow: hidden;
  background: color-mix(in srgb, currentColor 14%, transparent); }
.ssd .bar i { display: block; height: 100%; border-radius: 2px; background: var(--color-accent); }

.ssd .chart { position: relative; }
.ssd .chart svg { display: block; width: 100%; height: 120px;
  border-bottom: 1px solid var(--border-color-primary); }
.ssd .chart polygon { fill: var(--color-accent); opacity: .14; }
.ssd .chart polyline { fill: none; stroke: var(--color-accent); stroke-width: 2;
  stroke-linejoin: round; }
.ssd .chart .top { position: absolute; right: 0; top: -27px; }
.ssd .axis { display: flex; justify-content: space-between; margin: 4px 0 2px; }

.ssd .facts { list-style: none; margin: 0; padding: 0; display: grid; gap: 9px; }
.ssd .facts li { display: grid; grid-template-columns: 10px 110px 1fr; gap: 8px;
  align-items: baseline; margin: 0; }
.ssd .facts li > span { overflow-wrap: anywhere; }
.ssd .dot { width: 8px; height: 8px; border-radius: 50%; align-self: start; margin-top: 6px;
  background: var(--body-text-color-subdued); }
.ssd .dot.good { background: #2f9e63; }
.ssd .dot.warn { background: #d9a441; }
.ssd .dot.bad { background: #d9534f; }

.ssd .scroll { border: 1px solid var(--border-color-primary); border-radius: 10px;
  background: var(--block-background-fill); margin: 0 0 8px; max-height: 486px;
  overflow: hidden auto; }
.ssd table { width: 100%; border-collapse: separate; border-spacing: 0; table-layout: fixed;
  border: 0; margin: 0; font-size: 14px; }
.ssd tr { border: 0; }
.ssd th, .ssd td { text-align: left; padding: 9px 12px; border: 0; font-weight: 400;
  vertical-align: middle; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.ssd tbody tr + tr > * { border-top: 1px solid var(--border-color-primary); }
.ssd tbody tr:hover > * { background: var(--background-fill-secondary); }
.ssd thead th { font-size: 12.5px; background: var(--background-fill-secondary);
  border-bottom: 1px solid var(--border-color-primary); position: sticky; top: 0; z-index: 1; }
.ssd thead button { all: unset; cursor: pointer; }
.ssd thead th.number, .ssd td.number { text-align: right; }
.ssd thead button:hover, .ssd th[aria-sort] button { color: var(--body-text-color); }
.ssd thead button:focus-visible { outline: 2px solid var(--color-accent); outline-offset: 3px;
  border-radius: 3px; }
.ssd .number { font-variant-numeric: tabular-nums; }
.ssd .sessions th:nth-child(2) { width: 24%; }
.ssd .sessions th:nth-child(3) { width: 108px; }
.ssd .sessions th:nth-child(4), .ssd .sessions th:nth-child(5) { width: 128px; }
.ssd .sessions th:nth-child(6) { width: 84px; }
.ssd .sessions th:nth-child(7) { width: 122px; }
.ssd .plan th:nth-child(1) { width: 90px; }
.ssd .plan th:nth-child(2), .ssd .plan th:nth-child(3) { width: 21%; }
.ssd .plan th:nth-child(4) { width: 100px; }
.ssd .plan tbody th { width: auto; }
.ssd .reason { white-space: normal; overflow-wrap: anywhere; }
.ssd .summary { margin: 0 0 8px; }

.ssd .badge { display: inline-block; border-radius: 999px; padding: 1px 9px; font-size: 12px;
  border: 0; background: color-mix(in srgb, currentColor 11%, transparent); }
.ssd .badge.live { color: #1d7f4c; }
.ssd .badge.lingering, .ssd .badge.hold { color: #9a6700; }
.ssd .badge.drop, .ssd .badge.delete { color: #c0392b; }
.dark .ssd .badge.live { color: #56d394; }
.dark .ssd .badge.lingering, .dark .ssd .badge.hold { color: #e3b341; }
.dark .ssd .badge.drop, .dark .ssd .badge.delete { color: #ff7b72; }

@container (max-width: 900px) {
  .ssd .cards { grid-template-columns: 1fr 1fr; }
  .ssd .panels { grid-template-columns: 1fr; }
}
@container (max-width: 640px) {
  .ssd .card { padding: 11px 12px; }
  .ssd .card strong { font-size: 20px; }
  .ssd thead { display: none; }
  .ssd table, .ssd tbody, .ssd tr, .ssd td, .ssd tbody th { display: block; width: auto; }
  .ssd h1 { font-size: 19px; }
  .ssd .scroll { max-height: 70vh; }
  .ssd tbody tr { display: flex; flex-direction: column; padding: 10px 12px; }
  .ssd tbody tr + tr { border-top: 1px solid var(--border-color-primary); }
  .ssd tbody tr > *, .ssd tbody tr + tr > * { border: 0; padding: 2px 0; background: none; }
  .ssd tbody th { order: -1; width: auto !important; }
  .ssd tbody td, .ssd tbody td.number { display: grid; align-items: center; text-align: left;
    grid-template-columns: 96px minmax(0, 1fr); text-overflow: clip; }
  .ssd tbody td::before { content: attr(data-label); font-size: 12.5px; }
  .ssd tbody td > * { overflow: hidden; text-overflow: ellipsis; justify-self: start;
    max-width: 100%; }
  .ssd tbody td .bar { display: none; }
  .ssd tbody th code { font-size: 13.5px; }
  .ssd .facts li { grid-template-columns: 10px 96px 1fr; }
}
"""

_AROUND: Final = """
.ssd-root .html-container { padding: 0 !important; }
.ssd-root > .row { align-items: center; }
"""

CSS: Final = _AROUND + _BELOW.replace(".ssd ", ".ssd.ssd.ssd ")
"""Said thrice to outdo the style that Gradio gives to HTML in general (``.prose``)."""
