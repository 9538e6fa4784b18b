"""Systems to intervene on: SCMs and simulators."""
