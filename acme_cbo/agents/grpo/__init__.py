"""GRPO: rewards, rollouts, losses and updates."""
