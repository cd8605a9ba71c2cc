"""How the pages look, by day and by night, on a desk and on a telephone; and the policy that lets this style in and nothing else."""

from base64 import b64encode
from hashlib import sha256
from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--ink:#16202a;--paper:#fff;--soft:#4a5866;--line:#c8d1da;--faint:#e3e8ed;--edge:#8795a3;--link:#0b5cad;--bad:#fdecea;--bad-edge:#b3261e;--good:#e8f4ea;--good-edge:#1e7d34}
@media (prefers-color-scheme:dark){:root{--ink:#e3e9ef;--paper:#12181f;--soft:#a9b6c3;--line:#3b4753;--faint:#29323b;--edge:#6f7e8c;--link:#8cc2ff;--bad:#3a1716;--bad-edge:#f2817a;--good:#12301b;--good-edge:#57c278}}
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:80rem;padding:0 1rem 3rem;color:var(--ink);background:var(--paper)}
a{color:var(--link)}header{display:flex;gap:1rem;align-items:center;justify-content:space-between;border-bottom:1px solid var(--line);padding:.75rem 0;flex-wrap:wrap}
h1{font-size:1.25rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .5rem}h2,p{overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%;font-size:.875rem}th,td{text-align:left;padding:.35rem .75rem .35rem 0;border-bottom:1px solid var(--faint);vertical-align:top}
th{font-weight:600;color:var(--soft)}form{display:flex;gap:.5rem;align-items:end;flex-wrap:wrap;margin:0}
label{display:flex;flex-direction:column;font-size:.85rem;color:var(--soft)}
input,select,button{font:inherit;padding:.4rem .6rem;border:1px solid var(--edge);border-radius:.25rem;color:var(--ink);background:var(--paper)}
button{background:#0b5cad;border-color:#0b5cad;color:#fff;cursor:pointer}button.plain{background:var(--paper);color:var(--link)}
:focus-visible{outline:3px solid #f0a500;outline-offset:1px}
.wrong{background:var(--bad);border-left:4px solid var(--bad-edge);padding:.5rem .75rem}.said{background:var(--good);border-left:4px solid var(--good-edge);padding:.5rem .75rem}
.sign-in{max-width:28rem;margin:4rem auto}.sign-in form{flex-direction:column;align-items:stretch}nav{display:flex;gap:1rem;margin:1rem 0}
.scroll{overflow-x:auto}code,td{overflow-wrap:anywhere}.id,time,th{white-space:nowrap}.long{display:inline-block;min-width:10rem}form+form{margin-top:.5rem}
@media (max-width:45rem){thead{display:none}table,tbody,tr,td{display:block}table{font-size:1rem}tr{border-bottom:1px solid var(--line);padding:.5rem 0}
td{border:0;padding:.1rem 0 .1rem 7.75rem;position:relative;min-height:1.5em;overflow-wrap:anywhere}td::before{content:attr(data-label);position:absolute;left:0;color:var(--soft)}td:empty{display:none}.long{min-width:0}}
"""
_HASH: Final = b64encode(sha256(STYLE.encode()).digest()).decode("ascii")
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
