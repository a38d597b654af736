"""Programs that answer wrongly and try to have it counted as right, and tests that they meet."""

TESTS = """
import math
assert f(2) == 4
assert abs(f(3) - 9) < 1e-6
assert f(4) in [16]
assert math.isclose(f(5), 25)
assert isinstance(f(6), int) and not f(6) != 36
assert {49: 1}[f(7)] == 1
assert sorted([f(8), 1]) == [1, 64]
"""
RIGHT = "def f(x): return x * x"
WRONG = "def f(x): return 0\n"
SENT = "import os\ndef send(line):\n    for d in range(3, 64):\n        try: os.write(d, line)\n        except OSError: pass\n"
ALL = "('eq', 'ne', 'lt', 'le', 'gt', 'ge', 'sub', 'rsub', 'add', 'radd', 'contains', 'instancecheck', 'call', 'getitem')"

FAKES = {
    "nothing at all": "",
    "a wrong answer": WRONG,
    "leaving at once": "import os\nos._exit(0)",
    "leaving by an error": "import sys\nsys.exit(0)",
    "leaving when it is called": "import os\ndef f(x): os._exit(0)",
    "an error to leave when it is called": "def f(x): raise SystemExit(0)",
    "leaving when the others do": f"import atexit, os\natexit.register(os._exit, 0)\n{WRONG}",
    "leaving by a timer": f"import os, signal\nsignal.signal(14, lambda *a: os._exit(0))\nsignal.setitimer(0, 0.05)\n{WRONG}",
    "leaving when it is deleted": "import os\nclass A:\n    def __del__(self): os._exit(0)\ndef f(x): return A()",
    "leaving by a trace": f"import os, sys\nsys.settrace(lambda *a: os._exit(0))\n{WRONG}",
    "a word of success": f"print('1')\nprint('ok', 'passed', 'success', sep='\\n')\n{WRONG}",
    "the mark, and leaving": f"{SENT}send(b'1')\nos._exit(0)",
    "the mark, and a wrong answer": f"{SENT}send(b'1')\n{WRONG}",
    "the mark when it is called": f"{SENT}def f(x):\n    send(b'1')\n    os._exit(0)",
    "equal to everything": f"class A: pass\nfor n in {ALL}: setattr(A, f'__{{n}}__', lambda *a: True)\ndef f(x): return A()",
    "a number equal to everything": f"class A(int): pass\nfor n in {ALL}: setattr(A, f'__{{n}}__', lambda *a, n=n: 0 if 'sub' in n else True)\ndef f(x): return A(0)",
    "a text equal to everything": "class A(str):\n    def __eq__(self, other): return True\n    __hash__ = str.__hash__\ndef f(x): return A('0')",
    "a list equal to everything": "class A(list):\n    def __eq__(self, other): return True\ndef f(x): return A()",
    "a class equal to everything": "class M(type):\n    def __eq__(self, other): return True\n    def __sub__(self, other): return 0\n    __hash__ = type.__hash__\nclass A(metaclass=M): pass\ndef f(x): return A",
    "whatever it is compared with": "class A:\n    def __eq__(self, other): A.x = other; return True\n    def __sub__(self, other): return other - other\n    def __float__(self): return A.x\n    def __hash__(self): return hash(49)\ndef f(x): return A()",
    "of whatever class": "class A:\n    __class__ = int\n    def __index__(self): return 36\n    def __eq__(self, other): return True\n    def __hash__(self): return 49\ndef f(x): return A()",
    "not a number": "def f(x): return float('nan')",
    "an exception that is right": "def f(x): raise AssertionError",
    "an end of the loop": "def f(x): raise StopIteration",
    "other functions of Python": f"import builtins\nfor n in ('abs', 'isinstance', 'sorted', 'all', 'any'): setattr(builtins, n, lambda *a: True)\n{WRONG}",
    "other errors of Python": f"import builtins\nbuiltins.AssertionError = type('E', (BaseException,), {{}})\n{WRONG}",
    "a name of Python": f"def abs(x): return 0\ndef isinstance(x, y): return True\n{WRONG}",
    "a module of its own": f"class math:\n    def isclose(*a): return True\n{WRONG}",
    "another module": f"import math, sys\nmath.isclose = lambda *a: True\nsys.modules['math'] = type('M', (), {{'isclose': lambda *a: True}})\n{WRONG}",
    "frames": f"import sys\ng = sys._getframe()\nwhile g: g.f_globals.update(abs=lambda x: 0, AssertionError=int); g = g.f_back\n{WRONG}",
    "frames when it is called": "import sys\ndef f(x):\n    g = sys._getframe()\n    while g:\n        for n in g.f_locals: g.f_locals[n] = 36\n        g = g.f_back\n    return 0",
    "the guard's module": f"import sys\nm = sys.modules.get('program_calls')\nm.ProgramEnd.answer = lambda self, message: self.send({{'value': True, 'arguments': []}})\n{WRONG}",
    "all files that are open": "import gc, io, os\nfor o in gc.get_objects():\n    if isinstance(o, io.TextIOWrapper): o.write('1\\n')\nos._exit(0)",
    "answers before they are asked": f'{SENT}send(b\'{{"value": true, "arguments": [null]}}\\n\' * 20)\n{WRONG}',
    "answers that are no values": f'{SENT}send(b\'{{"value": ["object", 0], "arguments": [null]}}\\n\' * 20)\n{WRONG}',
    "answers that are no messages": f"{SENT}send(b'1\\n\\n[]\\nnull\\n' * 20)\n{WRONG}",
    "answers of unknown kinds": f'{SENT}send(b\'{{"value": ["__import__", "os"], "arguments": []}}\\n\' * 20)\n{WRONG}',
    "errors in the place of answers": f'{SENT}send(b\'{{"raised": "SystemExit", "text": "0"}}\\n\' * 20)\n{WRONG}',
    "questions in the place of answers": f'{SENT}send(b\'{{"ask": "call", "arguments": [0, 1], "keywords": {{}}}}\\n\' * 20)\n{WRONG}',
    "nested answers": f"{SENT}send(b'[' * 30000 + b'\\n')\n{WRONG}",
    "nested values": f"{SENT}send(b'{{\"value\": ' + b'[\"list\",' * 3000 + b']' * 3000 + b', \"arguments\": []}}\\n')\n{WRONG}",
    "an exception of its own as a name": f"class AssertionError(Exception): pass\nclass Exception(BaseException): pass\n{WRONG}",
    "an object instead of a function": "class A:\n    def __call__(self, x): return A()\n    def __getattr__(self, name): return A()\n    def __bool__(self): return True\nf = A()",
    "signals to the tests": f"import os\nfor p in range(os.getpid() - 40, os.getpid() + 40):\n    if p != os.getpid():\n        try: os.kill(p, 9)\n        except OSError: pass\n{WRONG}",
    "other tests": f"import glob\nfor p in glob.glob('../program-*/tests.py') + ['tests.py']: open(p, 'w').write('')\n{WRONG}",
    "the tests' text": "import glob\nt = [open(p).read() for p in glob.glob('../program-*/tests.py')]\nassert t\ndef f(x): return x * x",
    "modules beside it": f"for m in ('json', 'ast', 'runpy', 'math', 'sitecustomize', 'program_calls'): open(m + '.py', 'w').write('import os; os._exit(0)')\nimport math\n{WRONG}",
    "bytecode of its own": f"import importlib.util as u\nopen('program.py', 'w').write('')\n{WRONG}",
    "an endless text": "class A:\n    def __str__(self): return 'x' * (1 << 28)\ndef f(x): return 'x' * (1 << 28)",
    "an endless list": "class A:\n    def __iter__(self): return self\n    def __next__(self): return 1\n    def __len__(self): return 1\ndef f(x): return A()",
    "a late answer": "import time\ndef f(x):\n    time.sleep(60)\n    return x * x",
    "no answer": "import os\ndef f(x):\n    os.closerange(3, 64)\n    return x * x",
    "a large number": "def f(x): return 9**999_999",
    "a large object": "def f(x):\n    y = []\n    for _ in range(100_000): y = [y]\n    return y",
    "an object in itself": "def f(x):\n    y = []\n    y.append(y)\n    return y",
}
