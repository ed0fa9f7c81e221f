"""The main job: real jobs through a fleet that is being killed, checked to the last byte."""
