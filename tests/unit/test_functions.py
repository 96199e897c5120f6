"""Functions that travel: whose names they see, what comes along, what stays at home, what is sent again.

A *session* here is a `__main__` namespace; two of them stand for client and engine, in one process. The last tests
do the same with real processes.
"""

import subprocess
import sys
import textwrap
import types

import numpy as np
import pytest

from hpc.errors import SerializationError
from hpc.wire import functions
from hpc.wire.functions import MAX_GLOBAL_NBYTES, LoadedFunction, dump_function, load_function


class Session:
    """A process's `__main__`, entered with `with`."""

    def __init__(self, source=""):
        self.module = types.ModuleType("__main__")
        self.type(source)

    def type(self, source):
        exec(textwrap.dedent(source), self.module.__dict__)

    def __getitem__(self, name):
        return self.module.__dict__[name]

    def __contains__(self, name):
        return name in self.module.__dict__

    def __enter__(self):
        self._before = sys.modules["__main__"]
        sys.modules["__main__"] = self.module
        return self

    def __exit__(self, *exc):
        sys.modules["__main__"] = self._before

    def dump(self, name):
        with self:
            return dump_function(self[name])

    def load(self, blob):
        with self:
            return load_function(blob.name, blob.by_reference, blob.by_value)

    def run(self, loaded, *args):
        with self:
            loaded.prepare()
            return loaded.call(*args)


@pytest.fixture(autouse=True)
def fresh_receiver(monkeypatch):
    monkeypatch.setattr(functions, "_brought", {})
    monkeypatch.setattr(LoadedFunction, "_last", None)


@pytest.fixture
def engine():
    return Session()


# ---------------------------------------------------------------- names


def test_a_name_of_main_means_the_engines_own(engine):
    client = Session("x = 1\ndef f(): return x")
    engine.type("x = 42")
    loaded = engine.load(client.dump("f"))
    assert engine.run(loaded) == 42
    assert client["x"] == 1
    engine.type("x = 43")
    assert engine.run(loaded) == 43


def test_missing_names_come_along_functions_classes_modules_and_data(engine):
    client = Session(
        """
        import math as m
        data = [1, 2, 3]
        class Point:
            def __init__(self, x): self.x = x
        def helper(p): return m.floor(p.x) + sum(data)
        def f(x): return helper(Point(x))
        """
    )
    assert engine.run(engine.load(client.dump("f")), 2.5) == 8


def test_what_came_along_is_bound_in_the_engines_namespace_and_can_be_seen_there(engine):
    client = Session("scale = 3\ndef f(): return scale")
    engine.run(engine.load(client.dump("f")))
    assert engine["scale"] == 3


def test_what_the_function_assigns_stays_on_the_engine(engine):
    client = Session("def f():\n    global n\n    n = 5")
    engine.run(engine.load(client.dump("f")))
    assert engine["n"] == 5
    assert "n" not in client


def test_what_came_along_does_not_overwrite_what_the_engine_has_later_of_its_own(engine):
    client = Session("x = 1\ndef f(): return x")
    loaded = engine.load(client.dump("f"))
    assert engine.run(loaded) == 1
    engine.type("x = 2")
    assert engine.run(loaded) == 2
    client.type("x = 10")
    assert engine.run(engine.load(client.dump("f"))) == 2


def test_redefining_a_helper_at_the_client_changes_what_the_function_does(engine):
    client = Session("def helper(): return 'old'\ndef f(): return helper()")
    first = client.dump("f")
    assert engine.run(engine.load(first)) == "old"
    client.type("def helper(): return 'new'")
    second = client.dump("f")
    assert second.digest != first.digest
    assert engine.run(engine.load(second)) == "new"


def test_changing_data_that_comes_along_is_noticed(engine):
    client = Session("factor = 2\ndef f(x): return factor * x")
    old = engine.load(client.dump("f"))
    assert engine.run(old, 10) == 20
    client.type("factor = 3")
    new = engine.load(client.dump("f"))
    assert engine.run(new, 10) == 30
    assert engine.run(old, 10) == 20, "the older function still sees what came along with it"
    assert engine.run(new, 10) == 30


def test_changing_a_list_in_place_is_noticed(engine):
    client = Session("data = [1]\ndef f(): return sum(data)")
    assert engine.run(engine.load(client.dump("f"))) == 1
    client["data"].append(10)
    assert engine.run(engine.load(client.dump("f"))) == 11


def test_changing_an_attribute_of_a_class_is_noticed(engine):
    client = Session("class C:\n    n = 1\ndef f(): return C.n")
    assert engine.run(engine.load(client.dump("f"))) == 1
    before = client.dump("f").digest
    client.type("C.n = 2")
    assert client.dump("f").digest != before


def test_two_functions_that_bring_different_things_under_one_name(engine):
    one, two = Session("def g(): return 1\ndef f(): return g()"), Session("def g(): return 2\ndef f(): return g()")
    a, b = engine.load(one.dump("f")), engine.load(two.dump("f"))
    assert [engine.run(a), engine.run(b), engine.run(a)] == [1, 2, 1]


def test_recursion_and_mutual_recursion(engine):
    client = Session(
        """
        def fact(n): return 1 if n < 2 else n * fact(n - 1)
        def even(n): return n == 0 or odd(n - 1)
        def odd(n): return n != 0 and even(n - 1)
        """
    )
    assert engine.run(engine.load(client.dump("fact")), 10) == 3628800
    assert engine.run(engine.load(client.dump("even")), 10) is True


def test_closures_defaults_and_keyword_defaults_come_with_their_values(engine):
    client = Session(
        """
        def make(a):
            def f(x, b=10, *, c=100): return a + b + c + x
            return f
        f = make(1)
        """
    )
    assert engine.run(engine.load(client.dump("f")), 1000) == 1111


def test_the_closure_is_looked_at_again_before_each_use(engine):
    client = Session(
        """
        def make():
            n = 0
            def f(): return n
            def bump():
                nonlocal n
                n += 1
            return f, bump
        f, bump = make()
        """
    )
    assert engine.run(engine.load(client.dump("f"))) == 0
    client["bump"]()
    assert engine.run(engine.load(client.dump("f"))) == 1


# ---------------------------------------------------------------- what stays at home


def test_data_that_is_too_large_stays_and_the_error_says_to_push_it(engine):
    client = Session()
    client.module.big = np.zeros(MAX_GLOBAL_NBYTES // 8 + 1000)
    client.type("def f(): return big.sum()")
    blob = client.dump("f")
    assert len(blob.by_value) < 10_000
    loaded = engine.load(blob)
    with pytest.raises(NameError) as caught:
        engine.run(loaded)
    text = loaded.explain(caught.value)
    assert "name 'big' has 1.0 MiB at the client" in text
    assert "v.push({'big': big})" in text
    engine.module.big = np.ones(3)
    assert engine.run(loaded) == 3


def test_data_just_below_the_limit_comes_along(engine):
    client = Session()
    client.module.data = bytes(MAX_GLOBAL_NBYTES - 1000)
    client.type("def f(): return len(data)")
    assert engine.run(engine.load(client.dump("f"))) == MAX_GLOBAL_NBYTES - 1000


def test_what_cannot_be_pickled_stays_and_the_error_says_why(engine):
    client = Session("import threading\nlock = threading.Lock()\ndef f():\n    with lock: return 1")
    loaded = engine.load(client.dump("f"))
    with pytest.raises(NameError) as caught:
        engine.run(loaded)
    assert "name 'lock' cannot come along from the client (cannot pickle" in loaded.explain(caught.value)
    engine.type("import threading\nlock = threading.Lock()")
    assert engine.run(loaded) == 1


def test_other_errors_need_no_explanation(engine):
    loaded = engine.load(Session("def f(): return 1").dump("f"))
    assert loaded.explain(NameError("name 'y' is not defined", name="y")) == ""
    assert loaded.explain(ValueError("big")) == ""


def test_a_closure_over_something_that_cannot_travel_names_it():
    client = Session("import threading\ndef make():\n    lock = threading.Lock()\n    return lambda: lock\nf = make()")
    with pytest.raises(SerializationError, match=r"pickle _thread.lock .*variable 'lock' of make"):
        client.dump("f")


# ---------------------------------------------------------------- sent once


def test_an_unchanged_function_is_pickled_once():
    client = Session("import math\ndef g(x): return x\ndef f(x): return g(math.sqrt(x))")
    assert client.dump("f") is client.dump("f")
    assert len(client.dump("f").digest) == 16


def test_the_same_source_in_two_sessions_has_the_same_digest():
    assert Session("def f(): return 1").dump("f").digest == Session("def f(): return 1").dump("f").digest


def test_digests_never_look_like_a_built_in_operation():
    digests = [Session(f"def f(): return {i}").dump("f").digest for i in range(600)]
    assert len(set(digests)) == 600
    assert not any(d.startswith(b"!") for d in digests)


def test_functions_of_installed_modules_go_by_reference_alone():
    import json
    import math

    for func in (json.dumps, math.sqrt, len, np.sum, np.ndarray, dict.fromkeys):
        blob = dump_function(func)
        assert blob.by_reference, func
        assert not blob.by_value, func
        assert load_function(*blob[1:]).call == func


def test_functools_partial_of_a_main_function(engine):
    client = Session("import functools\ndef add(a, b): return a + b\nf = functools.partial(add, 1)")
    assert engine.run(engine.load(client.dump("f")), 2) == 3


def test_a_callable_object_of_main(engine):
    client = Session(
        "class F:\n    def __init__(self, k): self.k = k\n    def __call__(self, x): return self.k * x\nf = F(3)"
    )
    assert engine.run(engine.load(client.dump("f")), 5) == 15


def test_repr_says_what_came_along(engine):
    loaded = engine.load(Session("k = 1\ndef f(): return k").dump("f"))
    assert repr(loaded) == "<LoadedFunction f, brings ['k']>"


def test_a_function_that_can_be_had_in_no_way_says_so():
    with pytest.raises(SerializationError, match="function solve cannot be loaded on the engine: ModuleNotFoundError"):
        load_function("solve", b"cno_such_module_here\nsolve\n.", b"")


# ---------------------------------------------------------------- real processes

SENDER = """
import pickle, sys
{source}
from hpc.wire.functions import dump_function
sys.stdout.buffer.write(pickle.dumps(tuple(dump_function(f))))
"""
RECEIVER = """
import pickle, sys
from hpc.wire.functions import load_function
digest, *blob = pickle.load(sys.stdin.buffer)
loaded = load_function(*blob)
{source}
loaded.prepare()
print(loaded.call({args}))
"""


def python(source, *, cwd, stdin=b""):
    done = subprocess.run([sys.executable, "-c", source], cwd=cwd, input=stdin, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def send(source, *, sender_cwd, receiver_cwd, receiver="", args=""):
    blob = python(SENDER.format(source=source), cwd=sender_cwd)
    return python(RECEIVER.format(source=receiver, args=args), cwd=receiver_cwd, stdin=blob).decode().strip()


@pytest.fixture
def places(tmp_path):
    for name in ("client", "engine"):
        (tmp_path / name).mkdir()
    return {"sender_cwd": tmp_path / "client", "receiver_cwd": tmp_path / "engine"}


def test_between_processes_a_function_of_main_sees_the_engines_names(places):
    source = "x = 1\ny = 2\ndef f(z): return (x, y, z)"
    assert send(source, **places, receiver="x = 'mine'", args="3") == "('mine', 2, 3)"


def test_a_module_that_the_engine_cannot_import_travels_by_value_with_its_helpers(places):
    (places["sender_cwd"] / "mylab.py").write_text(
        "K = 3\ndef helper(x): return K * x\ndef f(x): return helper(x) + 1\n"
    )
    assert send("from mylab import f", **places, args="10") == "31"


def test_a_module_that_the_engine_can_import_is_imported(places):
    (places["sender_cwd"] / "mylab.py").write_text("def f(): return 'the client has this'\n")
    (places["receiver_cwd"] / "mylab.py").write_text("def f(): return 'the engine has that'\n")
    assert send("from mylab import f", **places) == "the engine has that"


def test_a_package_that_the_engine_cannot_import_travels_by_value_across_its_modules(places):
    package = places["sender_cwd"] / "lab"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "consts.py").write_text("def k(): return 7\n")
    (package / "model.py").write_text("from lab.consts import k\ndef f(x): return k() + x\n")
    assert send("from lab.model import f", **places, args="1") == "8"


def test_a_main_function_that_uses_a_local_module(places):
    (places["sender_cwd"] / "mylab.py").write_text("def g(x): return x * 2\n")
    assert send("from mylab import g\ndef f(x): return g(x) + 1", **places, args="4") == "9"


def test_a_main_function_that_uses_a_local_module_by_its_name(places):
    (places["sender_cwd"] / "mylab.py").write_text("def g(x): return x * 2\n")
    assert send("import mylab\ndef f(x): return mylab.g(x) + 1", **places, args="4") == "9"
