"""The page's figures as inline SVG, drawn here: no script, no network, a few kilobytes each.

plotly.js is 4.8 MB inline, needs scripts (so the page could not forbid them), and draws nothing in a mail viewer
or a CI artifact browser that blocks scripts. These figures need none, print well, and follow the light or dark theme
through CSS variables. Every point carries a <title> (a tooltip) and every figure a text alternative.
"""
