"""The objects that go over the wire, one file a group of resources. Names are Neon's where Neon names them."""
