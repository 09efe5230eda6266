"""The second engine: the vendor's own program `kiro-cli` keeps the login and asks the service.

program.py      finds the program, asks it for version, flags, login and models; ends processes
"""
