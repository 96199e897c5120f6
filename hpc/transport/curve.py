"""Key pairs of CURVE."""


def new_keypair() -> tuple[str, str]:
    """Return a new pair ``(public, secret)``, each as 40 characters of text."""
    import zmq

    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()
