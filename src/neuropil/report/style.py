"""The page's style sheet: light, dark and print themes; colours by variable, so charts and text follow the theme."""

CSS = """
:root{color-scheme:light dark;--ground:#fff;--raised:#f6f7f8;--ink:#16191d;--soft:#5a636e;--rule:#d9dde2;
--accent:#0072b2;
--c0:#7a828c;--c1:#0072b2;--c2:#d55e00;--c3:#009e73;--c4:#cc79a7;--c5:#e69f00;--c6:#56b4e9}
@media(prefers-color-scheme:dark){:root{--ground:#14171a;--raised:#1d2125;--ink:#e8eaed;--soft:#a2abb5;--rule:#343a41;
--accent:#56b4e9;--c0:#98a1ab;--c1:#3d9edb;--c2:#ec7a25;--c3:#18b88c}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,"Liberation Sans",sans-serif}
main,header,footer{max-width:1180px;margin:0 auto;padding:0 24px}
header{padding-top:34px}
h1{font-size:28px;line-height:1.2;margin:0 0 4px;letter-spacing:-.01em}
h2{font-size:20px;margin:0 0 4px;letter-spacing:-.005em}
h3{font-size:15.5px;margin:26px 0 8px}
h3 small{font-weight:400;color:var(--soft);margin-left:8px}
p{margin:6px 0 12px;max-width:78ch}
a{color:var(--accent)}
code,pre{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace}
code{background:var(--raised);border:1px solid var(--rule);border-radius:4px;padding:0 4px;overflow-wrap:anywhere}
pre{background:var(--raised);border:1px solid var(--rule);border-radius:6px;padding:12px 14px;overflow-x:auto;
margin:8px 0}
.run,.lead{color:var(--soft)}
.headline{font-size:18px;line-height:1.45;margin:14px 0 16px}
nav{position:sticky;top:0;z-index:2;background:var(--ground);border-bottom:1px solid var(--rule);margin-top:14px}
nav div{max-width:1180px;margin:0 auto;padding:9px 24px;display:flex;flex-wrap:wrap;gap:4px 20px;font-size:14px}
nav a{text-decoration:none}
nav a:hover{text-decoration:underline}
section{padding-top:30px;scroll-margin-top:30px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:12px;margin:16px 0}
.tile{background:var(--raised);border:1px solid var(--rule);border-radius:8px;padding:12px 16px}
.tile b{display:block;font-size:26px;line-height:1.25;font-weight:650;font-variant-numeric:tabular-nums}
.tile span{display:block;color:var(--soft);font-size:13px}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:2px 18px;margin:10px 0;font-size:14px}
.facts dt{color:var(--soft)}
.facts dd{margin:0;overflow-wrap:anywhere}
.note,.missing{border-left:3px solid var(--c5);background:var(--raised);padding:7px 12px;font-size:14px;
max-width:none}
.missing{border-color:var(--rule);color:var(--soft)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;margin:14px 0;font-size:14px;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);padding-bottom:6px;font-size:13.5px}
th,td{padding:5px 0 5px 22px;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap;
vertical-align:baseline}
th:first-child{padding-left:0;text-align:left}
.words2 :nth-child(2),.words7 td,.words7 th{text-align:left}
th[scope=row]{font-weight:500}
thead th{font-weight:500;color:var(--soft);font-size:13px;vertical-align:bottom;border-bottom-color:var(--soft)}
td strong{font-weight:700}
td small,th small{color:var(--soft);font-weight:400}
details{margin:10px 0;border:1px solid var(--rule);border-radius:6px;padding:6px 14px}
summary{cursor:pointer;font-size:14px}
figure{margin:0}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(400px,1fr));gap:22px 28px;margin:16px 0}
.chart figcaption{font-size:14px;font-weight:600;margin-bottom:6px}
.chart svg{width:100%;height:auto;display:block}
.chart.wide{max-width:860px;margin:16px 0}
.legend{display:flex;flex-wrap:wrap;gap:2px 18px;font-size:13px;padding:4px 0 0 10px}
.legend span{white-space:nowrap}
.legend .note{border:0;background:none;padding:0;color:var(--soft);font-size:13px}
.chart svg.key{display:inline-block;width:34px;height:14px;vertical-align:-2px;margin-right:6px}
svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,Arial,"Liberation Sans",sans-serif;fill:var(--ink)}
svg .tick,svg text.guide{fill:var(--soft);font-size:11.5px}
svg text.guide{font-size:10.5px}
svg .name{font-size:13px}
svg .value{font-size:12.5px;font-weight:600;font-variant-numeric:tabular-nums}
svg .grid{stroke:var(--rule);stroke-width:.8;fill:none}
svg .axis{stroke:var(--soft);fill:none}
svg polyline.guide{stroke:var(--c0);stroke-width:.7;fill:none;opacity:.55}
svg .line{fill:none;stroke:var(--c);stroke-width:2.1;stroke-linejoin:round}
svg .band{fill:var(--c);opacity:.14}
svg .mark{fill:var(--c);stroke:var(--ground);stroke-width:1}
svg .mark.k0{stroke:var(--c);stroke-width:2.4;fill:none}
svg .hover{fill:var(--c);opacity:0}
svg .hover:hover{opacity:.7}
svg .bar{stroke:var(--ground);stroke-width:.5}
svg .b0{fill:var(--c1)}
svg .b1{fill:url(#hatch)}
svg .b2{fill:var(--c3)}
svg .hatch-ground{fill:var(--c5)}
svg .hatch-line{fill:var(--ground);opacity:.55}
svg .whisker{stroke:var(--ink);stroke-width:1.3;fill:none}
svg .cell{fill:var(--c1);shape-rendering:crispEdges}
svg .bracket{stroke:var(--ink);stroke-width:1.6}
svg .ring{fill:var(--ground);stroke:var(--ink);stroke-width:1.6}
.chart svg.key.ramp{width:100px;height:12px;margin:0 6px}
.meter{display:inline-block;width:150px;height:9px;background:var(--raised);vertical-align:1px}
.meter i{display:block;height:100%;background:var(--c1)}
.step{padding-left:18px;color:var(--soft)}
.k0{--c:var(--c0)}.k1{--c:var(--c1)}.k2{--c:var(--c2)}.k3{--c:var(--c3)}.k4{--c:var(--c4)}.k5{--c:var(--c5)}.k6{
--c:var(--c6)}
.matrix{display:grid;grid-template-columns:repeat(var(--n),minmax(0,1fr));gap:8px;margin:8px 0 4px;
max-width:calc(var(--n)*330px)}
.matrix figcaption,.thumbs figcaption{font-size:12.5px;line-height:1.35;color:var(--soft);padding-top:3px}
.matrix figcaption b{color:var(--ink);font-weight:600}
.picture{position:relative;display:block;line-height:0;cursor:zoom-in}
.picture input{position:absolute;opacity:0;pointer-events:none}
.picture img{width:100%;height:auto;background:#000;border-radius:2px;image-rendering:auto}
.picture:focus-within img{outline:2px solid var(--accent)}
.picture input:checked~img{position:fixed;inset:2vh 2vw;width:96vw;height:96vh;object-fit:contain;z-index:9;
background:#000d;
border-radius:0;cursor:zoom-out;image-rendering:pixelated;box-shadow:0 0 0 4vmax #000d}
.bar-mark{position:absolute;left:4%;bottom:4%;border-bottom:4px solid #fff;
filter:drop-shadow(0 0 1px #000) drop-shadow(0 0 1px #000)}
.bar-mark i{position:absolute;left:0;bottom:4px;font:600 12px/1 system-ui,Arial,"Liberation Sans",sans-serif;
color:#fff;white-space:nowrap;
text-shadow:0 0 3px #000,0 0 3px #000}
.spot{position:absolute;width:22px;height:22px;margin:-11px 0 0 -11px;border:2px solid #fff;border-radius:50%;
box-shadow:0 0 0 1.5px #000,inset 0 0 0 1.5px #000}
.cases{display:grid;grid-template-columns:repeat(auto-fit,minmax(500px,1fr));gap:16px;margin:12px 0}
.case{border:1px solid var(--rule);border-radius:8px;padding:12px 14px}
.case h3{margin:0 0 2px}
.case p{margin:0 0 8px;font-size:13.5px}
.thumbs{display:grid;grid-template-columns:repeat(4,minmax(0,1fr));gap:7px}
footer{color:var(--soft);font-size:13px;margin-top:44px;padding-top:12px;padding-bottom:34px;
border-top:1px solid var(--rule)}
@media(max-width:640px){.charts,.cases{grid-template-columns:minmax(0,1fr)}.thumbs{
grid-template-columns:repeat(2,1fr)}
.facts{grid-template-columns:1fr}.facts dd{margin-bottom:6px}}
@media print{:root{color-scheme:light;--ground:#fff;--raised:#fff;--ink:#000;--soft:#444;--rule:#bbb;--accent:#000;
--c0:#7a828c;--c1:#0072b2;--c2:#d55e00;--c3:#009e73}
@page{size:A4;margin:14mm}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
body{font-size:10.5pt}
nav{display:none}
main,header,footer{max-width:none;padding:0}
section{padding-top:16pt}
h2,h3{break-after:avoid}
figure,.tile,.case,.matrix,tr{break-inside:avoid}
.charts{grid-template-columns:1fr 1fr}
.cases{grid-template-columns:1fr}
details{border:0;padding:0}
details::details-content{content-visibility:visible;display:block;block-size:auto}
pre{white-space:pre-wrap}
th,td{padding:3px 0 3px 9px;font-size:8pt}
thead th{font-size:7.5pt}
.scroll{overflow:visible;break-inside:avoid}
.scroll:has(.words7){break-inside:auto}
.lead{break-inside:avoid}
.lead,.case h3{break-after:avoid}}
"""
