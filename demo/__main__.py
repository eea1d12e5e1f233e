"""`python -m demo`: see it work, with nothing configured."""

from demo.demo import demo

if __name__ == "__main__":
    demo(prog_name="hookmirror demo")
