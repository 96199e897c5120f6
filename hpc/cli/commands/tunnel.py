"""``ipcluster tunnel``: a cluster behind a login node, from a machine outside."""

# ruff: noqa: D301 - click leaves a paragraph after \b as it is

import click

from hpc.cli.commands.options import fail, say
from hpc.cli.commands.status import choose
from hpc.errors import HpcError


@click.command("tunnel")
@click.option("--via", default="", metavar="[USER@]HOST", help="The login node, as ssh knows it.")
@click.option("--open", "open_it", is_flag=True, help="Open the tunnel and keep it until Ctrl-C.")
@click.argument("name", default="")
def command(via: str, open_it: bool, name: str) -> None:
    """Reach a cluster from a machine outside, by one ssh.

    \b
    On the login node: print the line for your own machine.
      ipcluster tunnel heat
    On your own machine: get the connection file, open the tunnel, keep it until Ctrl-C.
      ipcluster tunnel heat --via me@login.example.org --open
    ... or only get the file and print the ssh line, to be run as you like.
      ipcluster tunnel heat --via me@login.example.org

    While the tunnel is open hpc.connect("heat") works as it does there.
    """
    if not via:
        if open_it:
            raise click.UsageError("--open needs --via: which login node leads to the cluster?")
        _tell(name)
        return
    from hpc.cluster import tunnel as way

    try:
        info = way.fetch(via, name or "default")
        tunnel = way.to(info, via)
        near = way.install(info, tunnel)
    except (HpcError, ValueError, OSError) as error:
        fail(str(error))
    if not open_it:
        click.echo(tunnel)
        say(f"while this runs, hpc.connect({near!r}) reaches the cluster on {info.host}")
        return
    process = None
    try:
        process = tunnel.start()
        way.wait_open(tunnel, process)
        click.echo(f"The tunnel to cluster {info.name!r} on {info.host} is open.\nIn Python:\n\n    import hpc\n")
        click.echo(f"    rc = hpc.connect({near!r})\n\nCtrl-C closes it.")
        fail(f"ssh has ended with exit code {process.wait()}: {tunnel}")
    except (HpcError, OSError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        say("Ctrl-C: the tunnel is closed; the cluster goes on")
    finally:
        if process is not None:
            process.terminate()
            process.wait()
        way.remove(near)


def _tell(name: str) -> None:
    """Print, on the side of the cluster, what to type on the other one."""
    import getpass
    import socket

    from hpc.cluster.tunnel import Tunnel

    entry = choose(name)
    if entry is None or entry.gone or entry.info is None:
        fail(f"there is no cluster named {name!r} with a controller" if name else "no cluster is running")
    host, _, port = entry.info.addresses[0].removeprefix("tcp://").rpartition(":")
    if host.startswith("127.") and not entry.info.is_local():
        fail(f"its controller listens on {entry.info.host} for that machine only: start it with --ip '*'")
    login = f"{getpass.getuser()}@{socket.getfqdn()}"
    click.echo(Tunnel(login, host, int(port), int(port)))
    say(f"on your own machine; with the connection file from here: ipcluster tunnel {entry.name} --via {login} --open")
